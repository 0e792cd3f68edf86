"""Sums of squares per window, by PyTorch and by the GPU kernel."""

from __future__ import annotations

import pytest
import torch

from neuroal.kernels import square_sums
from tests.kernels.interpreter import needs_triton, run_in_interpreter

KERNELS = """
from neuroal.kernels import square_sums_triton
from tests.kernels.test_square_sums import check

square_sums_triton.TOKENS, square_sums_triton.COLS = 4, 8
check("cpu", square_sums_triton)
"""
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def check(device: str, functions: object = square_sums) -> None:
    """Check the sums of several shapes and types against float64 on `device`."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 1), (3, 7, 33), (2, 8, 16), (1, 130, 70)):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.randn(shape, generator=generator).to(dtype)
            sums = functions.square_sums(x.to(device)).cpu()  # type: ignore[attr-defined]
            assert sums.dtype == torch.float32
            torch.testing.assert_close(sums.double(), x.double().square().sum(1), rtol=1e-6, atol=0)
            alone = functions.square_sums(x[-1:].to(device)).cpu()  # type: ignore[attr-defined]
            assert torch.equal(alone[0], sums[-1])


@pytest.mark.parametrize("device", DEVICES)
def test_squares_are_summed_by_window(device: str) -> None:
    check(device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_value_that_is_not_finite_reaches_the_sum(device: str) -> None:
    x = torch.ones(2, 5, 3, device=device)
    x[1, 4, 2] = float("nan")
    assert square_sums.square_sums(x).isfinite().tolist() == [[True] * 3, [True, True, False]]


@needs_triton
def test_the_kernel_equals_the_reference_in_the_interpreter() -> None:
    run_in_interpreter(KERNELS)
