"""Candidates on several devices: what comes out is what one device finds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from neuroal.errors import UserError
from neuroal.models.replicas import replica, spread
from neuroal.pruners.budget import Allotment
from neuroal.topups.alignment import AlignmentCriterion
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.spread import SpreadCriterion
from tests.tiny import allocation_context, random_tokens, tiny_llama

CPU = torch.device("cpu")


@pytest.mark.parametrize("criterion", ["alignment", "perplexity"])
def test_several_workers_find_what_one_finds(
    monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    topup = NeuroAL(criterion=criterion)
    alone = topup.allocate(allocation_context(tiny_llama()))
    threads: set[int] = set()
    measure = AlignmentCriterion.measure

    def noted(self: AlignmentCriterion, allotments: Mapping[str, Allotment]) -> object:
        threads.add(threading.get_ident())
        return measure(self, allotments)

    monkeypatch.setattr(AlignmentCriterion, "measure", noted)
    subject = tiny_llama()
    before = {name: part.clone() for name, part in subject.model.state_dict().items()}
    together = topup.allocate(allocation_context(subject, devices=spread(CPU, 3)))
    assert together.report == alone.report
    for key, ratio in alone.plan.ratios.items():
        assert torch.equal(torch.as_tensor(ratio), torch.as_tensor(together.plan.ratios[key]))
    assert all(torch.equal(part, before[n]) for n, part in subject.model.state_dict().items())
    assert criterion != "alignment" or len(threads) > 1


def test_a_search_that_goes_one_by_one_makes_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = NeuroAL(search="early_out")
    alone = topup.allocate(allocation_context(tiny_llama()))
    monkeypatch.setattr("neuroal.topups.criteria.replica", None)
    together = topup.allocate(allocation_context(tiny_llama(), devices=spread(CPU, 3)))
    assert together.report == alone.report


def test_all_workers_are_busy_at_once() -> None:
    """Each waits for the other, so one alone would never end."""
    barrier = threading.Barrier(2, timeout=20)

    @dataclass
    class Meeting:
        criterion: float = 0.0

        def measure(self, allotments: Mapping[str, Allotment]) -> Meeting:
            barrier.wait()
            return self

    workers = [Meeting(1.0), Meeting(2.0)]
    found = list(SpreadCriterion(workers, [CPU, CPU]).measure_all([{}] * 4))
    assert sorted(outcome.criterion for outcome in found) == [1.0, 1.0, 2.0, 2.0]


def test_a_copy_shares_weights_on_the_same_device_but_not_their_modules() -> None:
    subject = tiny_llama()
    other = replica(subject, CPU)
    one, two = (model.linears[0][0].module for model in (subject, other))
    assert one is not two
    assert one.weight.data_ptr() == two.weight.data_ptr()
    two.weight.data = torch.zeros_like(two.weight)
    assert one.weight.any()
    tokens = random_tokens(1, 8)
    assert not torch.equal(subject.model(tokens).logits, other.model(tokens).logits)


def test_more_devices_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda", 1)
    assert spread(cuda, 2) == (cuda, torch.device("cuda", 0))
    with pytest.raises(UserError, match="devices=3: this machine has 2"):
        spread(cuda, 3)
