"""The estimated time of a grid counts prunings, in the search as well."""

from __future__ import annotations

import pytest

from neuroal.cli.declared import planned
from neuroal.grid.estimate import estimate
from neuroal.grid.status import RunState, Status


def seconds(*overrides: str) -> float:
    """Return the estimated seconds of one run of a 7B model on a GPU."""
    common = ["model=llama-7b", "sparsity=s70", "seed=0", "hydra/sweeper=grid"]
    _, runs = planned(["+experiment=paper", *common, "refine=none", *overrides])
    assert len(runs) == 1
    cost = estimate(runs, [Status(RunState.MISSING, ())], on_gpu=True).cost
    assert cost is not None
    return cost[0]


def test_the_time_of_alps_is_that_of_its_products() -> None:
    more = seconds("pruner=alps", "topup=uniform") - seconds("pruner=wanda", "topup=uniform")
    weights, width = 6.7e9, 4096
    assert more == pytest.approx(2 * width * 260 * weights / 2e14, rel=0.15)


def test_a_search_prunes_once_per_candidate() -> None:
    pruning = seconds("pruner=alps", "topup=uniform") - seconds("pruner=wanda", "topup=uniform")
    for topup, candidates in (("neuroal", 14), ("atp", 25), ("owl", 0)):
        more = seconds("pruner=alps", f"topup={topup}") - seconds("pruner=wanda", f"topup={topup}")
        assert more == pytest.approx((1 + candidates) * pruning)
