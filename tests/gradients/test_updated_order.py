"""The order of the weights follows the mask and the updated weights of the pruner."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.updated_order import UpdatedOrder
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import Pruner
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.tracking import QuietProgress
from tests.small_models import random_tokens, tiny_llama

TOKENS = random_tokens(4, 24)
UPDATING = [SparseGPT(block_size=8), ALPS(stages=2, stage_steps=3, cg_steps=10)]
by_pruner = pytest.mark.parametrize("pruner", UPDATING, ids=lambda p: p.name)


def row_counts(decoder: DecoderModel) -> dict[str, Tensor]:
    """Return different numbers of zeros for the rows of every linear."""
    return {lin.key: (torch.arange(lin.rows) * 7) % (lin.cols + 1) for lin in decoder}


def updated_order(decoder: DecoderModel, pruner: Pruner) -> UpdatedOrder:
    order = UpdatedOrder(decoder, pruner)
    runner = BlockRunner.capture(decoder, TOKENS, 2)
    order.compute(runner, QuietProgress())
    order.update(runner, QuietProgress(), row_counts(decoder))
    return order


@by_pruner
def test_at_the_counts_of_the_update_the_weights_are_those_of_the_pruner(pruner: Pruner) -> None:
    decoder = tiny_llama()
    dense = {linear.key: linear.weight.clone() for linear in decoder}
    counts = row_counts(decoder)
    order = updated_order(decoder, pruner)
    assert all(torch.equal(linear.weight, dense[linear.key]) for linear in decoder)
    weights = order.masked(list(decoder), counts)
    budgets = {
        linear.key: LinearBudget(counts[linear.key], counts[linear.key] / linear.cols, Rules.EXACT)
        for linear in decoder
    }
    batch = AdaptiveBatch("prune", 2, divides=True)
    prune_model(decoder, pruner, budgets, TOKENS, batch, QuietProgress())
    for linear in decoder:
        torch.testing.assert_close(weights[linear.key], linear.weight, atol=1e-5, rtol=1e-4)
        assert torch.equal(weights[linear.key] == 0, linear.weight == 0)


@by_pruner
def test_other_counts_prune_more_of_the_updated_weights_or_restore_dense_ones(
    pruner: Pruner,
) -> None:
    decoder = tiny_llama()
    counts = row_counts(decoder)
    order = updated_order(decoder, pruner)
    linears = list(decoder)
    middle = order.masked(linears, counts)
    fewer, more = (
        {lin.key: (counts[lin.key] + by).clamp(0, lin.cols) for lin in linears} for by in (-5, 5)
    )
    for linear in linears:
        dense, updated = linear.weight, middle[linear.key]
        low, high = (order.masked([linear], c)[linear.key] for c in (fewer, more))
        restored = (low != 0) & (updated == 0)
        assert torch.equal(low[restored], dense[restored])
        assert torch.equal(low[~restored], updated[~restored])
        removed = (updated != 0) & (high == 0)
        assert torch.equal(removed.sum(1), more[linear.key] - counts[linear.key])
        assert torch.equal(high[~removed], updated[~removed])


def test_before_the_first_update_the_weights_are_dense() -> None:
    decoder = tiny_llama()
    order = UpdatedOrder(decoder, ALPS())
    linear = next(iter(decoder))
    assert order.values(linear) is linear.weight or torch.equal(order.values(linear), linear.weight)


def test_the_budget_of_the_update_has_one_ratio_per_row() -> None:
    class Recorded(SparseGPT):
        def prune(self, weight, statistics, budget):  # type: ignore[no-untyped-def]
            budgets.append(budget)
            return super().prune(weight, statistics, budget)

    budgets: list[LinearBudget] = []
    decoder = tiny_llama(num_hidden_layers=1)
    updated_order(decoder, Recorded(block_size=8))
    for linear, budget in zip(decoder, budgets, strict=True):
        counts = row_counts(decoder)[linear.key]
        assert torch.equal(budget.counts, counts)
        assert torch.equal(torch.as_tensor(budget.ratio), counts / linear.cols)
