"""A search on several devices gives the same results as on one device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from neuroal.errors import UserError
from neuroal.models.devices import pick_devices, replica
from neuroal.search.criteria.alignment import AlignmentCriterion
from neuroal.search.multi_device import MultiDeviceCriterion
from neuroal.sparsity.budget import LinearBudget
from neuroal.topups.neuroal import NeuroAL
from tests.small_models import allocation_context, random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.mark.parametrize("criterion", ["alignment", "perplexity"])
def test_several_devices_give_the_result_of_one(
    monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    topup = NeuroAL(criterion=criterion)
    alone = topup.allocate(allocation_context(tiny_llama()))
    threads: set[int] = set()
    evaluate = AlignmentCriterion.evaluate

    def recorded(self: AlignmentCriterion, budgets: Mapping[str, LinearBudget]) -> object:
        threads.add(threading.get_ident())
        return evaluate(self, budgets)

    monkeypatch.setattr(AlignmentCriterion, "evaluate", recorded)
    decoder = tiny_llama()
    before = {name: part.clone() for name, part in decoder.model.state_dict().items()}
    together = topup.allocate(allocation_context(decoder, devices=pick_devices(CPU, 3)))
    assert together.report == alone.report
    for key, ratio in alone.plan.ratios.items():
        assert torch.equal(torch.as_tensor(ratio), torch.as_tensor(together.plan.ratios[key]))
    assert all(torch.equal(part, before[n]) for n, part in decoder.model.state_dict().items())
    assert criterion != "alignment" or len(threads) > 1


def test_an_adaptive_search_copies_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = NeuroAL(search="adaptive")
    alone = topup.allocate(allocation_context(tiny_llama()))
    monkeypatch.setattr("neuroal.search.criteria.make.replica", None)
    together = topup.allocate(allocation_context(tiny_llama(), devices=pick_devices(CPU, 3)))
    assert together.report == alone.report


def test_all_devices_work_in_parallel() -> None:
    """Each evaluation waits for another one, so a sequential search would time out."""
    barrier = threading.Barrier(2, timeout=20)

    @dataclass
    class Meeting:
        criterion: float = 0.0

        def evaluate(self, budgets: Mapping[str, LinearBudget]) -> Meeting:
            barrier.wait()
            return self

    criteria = [Meeting(1.0), Meeting(2.0)]
    results = list(MultiDeviceCriterion(criteria, [CPU, CPU]).evaluate_all([{}] * 4))
    assert sorted(result.criterion for result in results) == [1.0, 1.0, 2.0, 2.0]


def test_a_replica_on_the_same_device_shares_weights_but_not_modules() -> None:
    decoder = tiny_llama()
    other = replica(decoder, CPU)
    one, two = (model.linears[0][0].module for model in (decoder, other))
    assert one is not two
    assert one.weight.data_ptr() == two.weight.data_ptr()
    two.weight.data = torch.zeros_like(two.weight)
    assert one.weight.any()
    tokens = random_tokens(1, 8)
    assert not torch.equal(decoder.model(tokens).logits, other.model(tokens).logits)


def test_more_devices_than_available_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda", 1)
    assert pick_devices(cuda, 2) == (cuda, torch.device("cuda", 0))
    with pytest.raises(UserError, match="devices=3: this machine has 2"):
        pick_devices(cuda, 3)
