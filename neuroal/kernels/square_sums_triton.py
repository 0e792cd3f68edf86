"""GPU kernel of `neuroal.kernels.square_sums`: all windows at once, without temporaries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS = 64
COLS = 64
"""Tile of a program, which adds up the tiles of its columns."""


@triton.jit  # type: ignore[untyped-decorator]
def _square_sums(  # type: ignore[no-untyped-def]
    x,
    sums,
    tokens,
    cols,
    TOKENS: tl.constexpr,  # noqa: N803
    COLS: tl.constexpr,  # noqa: N803
):
    window = tl.program_id(1).to(tl.int64)
    col = tl.program_id(0) * COLS + tl.arange(0, COLS)
    token = tl.arange(0, TOKENS)
    inside = col < cols
    place = x + window * tokens * cols + token[:, None].to(tl.int64) * cols + col[None, :]
    total = tl.zeros((TOKENS, COLS), tl.float32)
    for first in range(0, tokens, TOKENS):
        value = tl.load(
            place, mask=(token[:, None] < tokens - first) & inside[None, :], other=0.0
        ).to(tl.float32)
        total += value * value
        place += TOKENS * cols
    tl.store(sums + window * cols + col, tl.sum(total, 0), mask=inside)


def square_sums(x: Tensor) -> Tensor:
    """Compute `neuroal.kernels.square_sums.square_sums`."""
    windows, tokens, cols = x.shape
    sums = torch.empty((windows, cols), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _square_sums[(triton.cdiv(cols, COLS), windows)](
            x, sums, tokens, cols, TOKENS=TOKENS, COLS=COLS
        )
    return sums
