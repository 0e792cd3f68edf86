"""Masks: which weights of a linear are pruned. In every mask, True = pruned."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def lowest_per_row(scores: Tensor, counts: Tensor, *, ties_to_higher: bool = False) -> Tensor:
    """Mask of the lowest scores of every row.

    Args:
        scores: (rows, cols), no NaN.
        counts: (rows,) int64, how many entries of each row are pruned; 0 … cols.
        ties_to_higher: among equal scores prune the higher columns first, not the lower ones.

    Returns:
        (rows, cols) bool, True = pruned, with exactly `counts` True in the rows.
    """
    counts = counts.to(scores.device)
    cols = scores.shape[1]
    ordered = _sorted_rows(scores)
    position = (counts - 1).clamp(min=0)[:, None]
    threshold = ordered.gather(1, position)
    # Where the next value up is larger than the threshold, no tie crosses it.
    following = ordered.gather(1, counts.clamp(max=cols - 1)[:, None])
    mask = scores <= threshold
    mask[counts == 0] = False
    tied = ((following == threshold).squeeze(1) & (counts > 0) & (counts < cols)).nonzero()[:, 0]
    if len(tied):
        mask[tied] = _break_ties(scores[tied], threshold[tied], counts[tied], ties_to_higher)
    return mask


def _sorted_rows(scores: Tensor) -> Tensor:
    """Ascending values of each row. On a CPU numpy's vectorised sort is several times faster."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def _break_ties(scores: Tensor, threshold: Tensor, counts: Tensor, to_higher: bool) -> Tensor:
    below, equal = scores < threshold, scores == threshold
    wanted = (counts - below.sum(1))[:, None]
    running = equal.flip(1).cumsum(1).flip(1) if to_higher else equal.cumsum(1)
    return below | (equal & (running <= wanted))


def lowest_overall(scores: Tensor, count: int) -> Tensor:
    """Mask of the `count` lowest entries of a whole matrix, ties in row-major order."""
    flat = scores.reshape(1, -1)
    return lowest_per_row(flat, torch.tensor([count])).view_as(scores)


def digest(mask: Tensor) -> str:
    """SHA-256 (hex) of the packed bits of `mask`, row-major."""
    return hashlib.sha256(pack(mask).tobytes()).hexdigest()


def pack(mask: Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The bits of `mask`, row-major, eight a byte (``numpy.packbits``)."""
    return np.packbits(mask.cpu().numpy())


def unpack(bits: np.ndarray[tuple[int], np.dtype[np.uint8]], shape: tuple[int, int]) -> Tensor:
    """The mask that `pack` packed."""
    flat = np.unpackbits(bits, count=shape[0] * shape[1])
    return torch.from_numpy(flat.astype(bool)).view(shape)
