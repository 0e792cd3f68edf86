"""Defaults of the interfaces, which methods of others inherit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.pipeline import Recipe
from neuroal.pruners.base import FactorPruner, Factors, MaskRefiner, measured
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import LinearBudget, Rules
from neuroal.topups.uniform import Uniform
from tests.small_models import tiny_llama


class Unchanged(MaskRefiner):
    def refine(
        self, weight: Tensor, mask: Tensor, statistics: InputStatistics, rules: Rules
    ) -> Tensor:
        return mask


class Preserving(Unchanged):
    patterns = True


def test_a_refiner_preserves_patterns_only_if_it_says_so() -> None:
    settings = PruningSettings(Wanda(), 0.5, group=4)
    with pytest.raises(UserError, match="sparsity"):
        Recipe(settings, Uniform(), Unchanged()).check()
    Recipe(settings, Uniform(), Preserving()).check()


def test_a_refiner_applies_to_all_linears_and_scores_take_no_time() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    assert all(Unchanged().applies_to(decoder, linear) for linear in decoder)
    assert Wanda().operations_per_weight(64) == 0


def test_a_row_and_a_column_factor_bound_the_scores() -> None:
    class Own(FactorPruner):
        def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
            return Factors(rows=torch.tensor([2.0, torch.inf]), cols=torch.tensor([1.0, 3.0]))

    weight = torch.tensor([[1.0, -4.0], [2.0, 3.0]])
    assert float(Factors(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0])).bound(weight)) == 24
    budget = LinearBudget(torch.tensor([1, 1]), 0.5, Rules.EXACT)
    assert not bool(Own().prune(weight, None, budget).finite)


def test_a_pruner_with_needs_receives_statistics() -> None:
    with pytest.raises(ValueError, match="declares needs"):
        measured(None)
