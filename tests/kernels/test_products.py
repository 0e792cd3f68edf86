"""Products with float16 operands differ from float32 by the rounding of the operands alone."""

from __future__ import annotations

import pytest
import torch

from neuroal.kernels.products import operand, product


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_rows_of_any_size_are_multiplied_with_ten_bits(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, generator=generator) * size * torch.logspace(-3, 3, 8)[:, None]
    matrix = torch.corrcoef(torch.randn(64, 200, generator=generator))
    exact, rounded = x @ matrix, product(x, matrix.half())
    errors = torch.linalg.vector_norm(exact - rounded, dim=1)
    assert bool((errors < 2**-10 * torch.linalg.vector_norm(exact, dim=1)).all())
    assert not torch.equal(exact, rounded)


def test_rows_of_zeros_stay_zeros() -> None:
    assert not bool(product(torch.zeros(3, 5), torch.eye(5).half()).any())


def test_a_cpu_multiplies_float32() -> None:
    x, matrix = torch.rand(3, 5), torch.rand(5, 5)
    assert operand(matrix) is matrix
    assert torch.equal(product(x, operand(matrix)), x @ matrix)
