"""Steps of SparseGPT on one block of columns.

These PyTorch implementations define the results of the GPU kernels in `column_blocks_triton`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroal.kernels.selection import Groups, has_triton, lowest_per_row

WIDEST = 256
"""Maximum number of columns of a block that the GPU kernels hold in registers."""
LARGEST = 2**30
"""Maximum number of entries of a block for the GPU kernels."""


def lowest_overall(scores: Tensor, count: int, *, all_ties: bool = False) -> Tensor:
    """Return the mask of the `count` lowest entries of a whole matrix, ties in row-major order.

    Args:
        scores: (rows, cols) float32, at least 0 and without NaN.
        count: number of entries to prune.
        all_ties: also prune all entries that equal the highest pruned one.
    """
    if has_kernel(scores):
        from neuroal.kernels import column_blocks_triton

        return column_blocks_triton.lowest_overall(scores, count, all_ties)
    flat = scores.reshape(1, -1)
    if all_ties and count:
        return scores <= flat.sort().values[0, count - 1]
    return lowest_per_row(flat, torch.tensor([count])).view_as(scores)


def eliminate(block: Tensor, triangle: Tensor, mask: Tensor) -> Tensor:
    """Zero the entries of `mask`, column by column, and compensate in the columns that follow.

    Each column c with the error e = w_c / U_cc in its pruned rows changes the columns after it by
    −e·U_c.

    Args:
        block: (rows, width) float32; changed in place.
        triangle: U (width, width), upper triangular.
        mask: entries to prune, (rows, width) bool.

    Returns:
        The errors e, (rows, width).
    """
    if has_kernel(block):
        from neuroal.kernels import column_blocks_triton

        return column_blocks_triton.eliminate(block, triangle, mask)
    return _eliminate(block, triangle, None, mask)[0]


def eliminate_groups(
    block: Tensor, triangle: Tensor, groups: Groups, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Eliminate like `eliminate`, with a mask chosen group by group.

    Each group is scored by w²/U_cc² after the updates from all columns before it.

    Args:
        block: (rows, width) float32; changed in place.
        triangle: U (width, width), upper triangular.
        groups: groups of columns; the first one starts at the first column.
        target: entries to prune instead of those with the lowest scores, (rows, width) bool.

    Returns:
        The errors and the mask of the lowest scores, both (rows, width).
    """
    if has_kernel(block):
        from neuroal.kernels import column_blocks_triton

        return column_blocks_triton.eliminate_groups(block, triangle, groups, target)
    return _eliminate(block, triangle, groups, target)


def subtract_product(columns: Tensor, errors: Tensor, factor: Tensor) -> None:
    """Subtract errors·factor from `columns` in place: (rows, n) − (rows, width)·(width, n)."""
    if columns.is_cuda:
        columns.addmm_(errors, factor, alpha=-1)  # without a temporary of the size of `columns`
    else:
        columns -= errors @ factor


def has_kernel(values: Tensor) -> bool:
    """Return whether the Triton kernels support `values` (rows, cols), without importing Triton."""
    return (
        values.is_cuda
        and values.dtype == torch.float32
        and 0 < values.shape[1] <= WIDEST
        and 0 < values.numel() < LARGEST
        and has_triton()
    )


def _eliminate(
    block: Tensor, triangle: Tensor, groups: Groups | None, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the errors and the mask of the lowest scores, or `target` without groups."""
    tile, errors = block.clone(), torch.zeros_like(block)
    lowest = torch.zeros_like(block, dtype=torch.bool) if groups or target is None else target
    pruned = lowest if target is None else target
    scale, width = triangle.diagonal().square(), block.shape[1]
    for column in range(width):
        if groups is not None and column % groups.of == 0:
            group = slice(column, min(column + groups.of, width))
            lowest[:, group] = groups.lowest(tile[:, group].square() / scale[group])
        remaining = tile[:, column].masked_fill(pruned[:, column], 0)
        errors[:, column] = (tile[:, column] - remaining) / triangle[column, column]
        tile[:, column:] -= errors[:, column, None] * triangle[None, column, column:]
        tile[:, column] = remaining
    block.copy_(tile)
    return errors, lowest
