"""Siblings are pruned together with the bytes of pruning them one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import InputStatistics
from neuroal.models.adapter import DecoderModel
from neuroal.pruners import batches as batches_module
from neuroal.pruners.base import FactorPruner, Factors, Pruner
from neuroal.pruners.batches import batches
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.search.criteria.base import pruned_by
from neuroal.sparsity.budget import LinearBudget, Rules, linear_budgets
from neuroal.sparsity.plan import SparsityPlan, uniform_plan
from neuroal.tracking import QuietProgress
from tests.routed import routed as routed_model
from tests.small_models import random_tokens, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:block .* saw fewer")
TOKENS = random_tokens(6, 40)


def routed(model_type: str = "mixtral") -> DecoderModel:
    return DecoderModel(routed_model(model_type))


def budgets_of(decoder: DecoderModel, *, by_row: bool, rules: Rules) -> dict[str, LinearBudget]:
    if not by_row:
        return linear_budgets(uniform_plan(decoder, 0.5), decoder, rules)
    generator = torch.Generator().manual_seed(2)
    ratios: dict[str, Any] = {
        linear.key: 0.4 + 0.2 * torch.rand(linear.rows, generator=generator) for linear in decoder
    }
    return linear_budgets(SparsityPlan(ratios, 0.5), decoder, rules)


def pruned(
    decoder: DecoderModel,
    method: Pruner | RefinedPruner,
    budgets: dict[str, LinearBudget],
    masks: PackedMasks | None = None,
) -> PackedMasks:
    batch = AdaptiveBatch("prune", 3, divides=True)
    return prune_model(decoder, method, budgets, TOKENS, batch, QuietProgress(), masks=masks)


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("pruner", [Wanda(), Magnitude(), Multiflow()], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("by_row", "rules"), [(False, Rules.EXACT), (True, Rules.EXACT), (True, Rules.REFERENCE)]
)
@pytest.mark.parametrize("most", [5000, 2**25], ids=["pairs", "all"])
def test_a_batch_has_the_bytes_of_single_linears(
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    pruner: Pruner,
    by_row: bool,
    rules: Rules,
    most: int,
) -> None:
    results = []
    for weights in (1, most):
        monkeypatch.setattr(batches_module, "MOST_WEIGHTS", weights)
        decoder = routed(model_type)
        budgets = budgets_of(decoder, by_row=by_row, rules=rules)
        sizes = {len(part) for part in batches(decoder.linears[0], pruner, budgets)}
        assert (max(sizes) > 1) == (weights > 1)
        masks = pruned(decoder, pruner, budgets)
        results.append((decoder, masks))
    (single, masks), (together, masks_of_batches) = results
    assert list(masks_of_batches) == list(masks) == [linear.key for linear in single]
    assert masks_of_batches.digests() == masks.digests()
    assert masks_of_batches.sparsities() == masks.sparsities()
    for linear, other in zip(single, together, strict=True):
        assert torch.equal(linear.weight.view(torch.int32), other.weight.view(torch.int32))
        assert torch.equal(linear.weight == 0, masks[linear.key])


def test_a_search_prunes_in_batches_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for weights in (1, 2**25):
        monkeypatch.setattr(batches_module, "MOST_WEIGHTS", weights)
        decoder = routed("gpt_oss")
        budgets = budgets_of(decoder, by_row=True, rules=Rules.EXACT)
        generator = torch.Generator().manual_seed(3)
        statistics = {
            linear.key: InputStatistics(torch.rand(2, linear.cols, generator=generator))
            for linear in decoder.linears[0]
        }
        results.append(pruned_by(Wanda(), budgets)(decoder.linears[0], statistics))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(weight, results[1][key]) for key, weight in results[0].items())


def test_masks_of_an_earlier_run_are_applied_in_batches() -> None:
    first, again = routed(), routed()
    budgets = budgets_of(first, by_row=False, rules=Rules.EXACT)
    masks = pruned(first, Wanda(), budgets)
    repeated = pruned(again, Wanda(), budgets, masks)
    assert repeated.digests() == masks.digests()
    assert repeated.differing == 0
    other = pruned(routed(), Wanda(), budgets, pruned(routed(), Magnitude(), budgets))
    assert other.differing is not None
    assert other.differing > 0


@dataclass(frozen=True)
class Own(Wanda):
    """A pruner with a `prune` of its own, which may do anything."""

    def prune(self, *args: Any) -> Any:
        return super().prune(*args)


def test_only_siblings_of_one_shape_are_pruned_together() -> None:
    decoder = routed("qwen2_moe")
    linears = decoder.linears[0]
    budgets = budgets_of(decoder, by_row=False, rules=Rules.EXACT)
    parts = [[lin.name for lin in part] for part in batches(linears, Wanda(), budgets)]
    assert [len(part) for part in parts].count(4) == 2
    assert sum(len(part) for part in parts) == len(linears)
    for part in parts:
        assert len({name.rpartition(".")[2] for name in part}) == 1
    for method in (SparseGPT(), Own()):
        assert {len(part) for part in batches(linears, method, budgets)} == {1}
    assert {len(p) for p in RefinedPruner(Wanda(), DSnoT()).batches(linears, budgets)} == {1}
    pattern = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT, 4)
    assert {len(part) for part in batches(linears, Wanda(), pattern)} == {1}
    dense = tiny_llama()
    budgets = linear_budgets(uniform_plan(dense, 0.5), dense, Rules.EXACT)
    assert {len(part) for part in batches(dense.linears[0], Wanda(), budgets)} == {1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.full((48,), torch.nan), "its scores are NaN or infinite"),
        (torch.ones(47), r"factor of the cols has the shape \(47,\); must be \(48,\)"),
    ],
    ids=["nan", "shape"],
)
def test_an_error_names_the_expert(wrong: Tensor, message: str) -> None:
    decoder = routed()
    number = [lin.name for lin in decoder.linears[0]].index("mlp.experts.2.down_proj")
    address = decoder.linears[0][number].weight.data_ptr()

    @dataclass(frozen=True)
    class Faulty(FactorPruner):
        def factors(self, weight: Tensor, statistics: InputStatistics | None) -> Factors:
            faulty = weight.data_ptr() == address
            return Factors(cols=wrong if faulty else torch.ones(weight.shape[1]))

    budgets = budgets_of(decoder, by_row=False, rules=Rules.EXACT)
    line = rf"^pruner=faulty: '0\.mlp\.experts\.2\.down_proj': .*{message}"
    with pytest.raises(UserError, match=line):
        pruned(decoder, Faulty(), budgets)
