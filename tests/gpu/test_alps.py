"""ALPS on a GPU: float16 operands, as exact as on a CPU for what they are used for."""

from __future__ import annotations

import pytest
import torch

import neuroal
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.kernels.products import operand, product
from neuroal.pruners.alps import ALPS
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.sparsity.patterns import Pattern
from tests.small_models import random_tokens, tiny_llama

ROWS, COLS = 96, 256


def test_products_equal_those_of_a_cpu_with_the_same_operands() -> None:
    x, matrix = torch.randn(ROWS, COLS), torch.corrcoef(torch.randn(COLS, 600))
    result = product(x.cuda(), operand(matrix.cuda()))
    torch.testing.assert_close(result.cpu(), product(x, matrix.half()), atol=1e-4, rtol=1e-4)
    exact = product(x.cuda(), operand(matrix.cuda(), exact=True))
    torch.testing.assert_close(exact.cpu(), x @ matrix, atol=1e-4, rtol=1e-4)


def test_no_global_setting_of_products_changes() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    neuroal.prune(
        tiny_llama(hidden_size=64).model.cuda(), random_tokens(4, 24), pruner="alps",
        topup="uniform",
    )  # fmt: skip
    after = torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    assert before == after


@pytest.mark.parametrize("pattern", [None, Pattern(2, 4)])
def test_the_error_is_that_of_a_cpu(pattern: Pattern | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, COLS, generator=generator)
    x = x @ torch.randn(COLS, COLS, generator=generator)
    weight = torch.randn(ROWS, COLS, generator=generator)
    counts = torch.full((ROWS,), COLS // 2)
    budget = LinearBudget(counts, 0.5, Rules.EXACT, pattern)
    errors = []
    for device, pruner in (
        ("cpu", ALPS()), ("cuda", ALPS()), ("cuda", ALPS(exact_products=True)),
    ):  # fmt: skip
        inputs = x.to(device)
        statistics = InputStatistics(inputs.square().sum(0)[None], gram=inputs.T @ inputs)
        pruned = pruner.prune(weight.to(device), statistics, budget)
        assert bool(budget.met_by(pruned.mask))
        again = pruner.prune_to(weight.to(device), statistics, budget, pruned.mask)
        assert torch.equal(again.weight, pruned.weight)
        difference = (weight - pruned.weight.cpu()) @ x.T
        errors.append(float(difference.square().sum()))
    assert errors[1:] == pytest.approx([errors[0]] * 2, rel=0.02)
