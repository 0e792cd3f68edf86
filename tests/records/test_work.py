"""Work and memory of a run follow from its configuration and the shape of its model."""

from __future__ import annotations

import dataclasses

import pytest

from neuroal.cli.compose import composed
from neuroal.models.shape import ModelShape, shape_of
from neuroal.records.memory import memory_of
from neuroal.records.rates import Observation, seconds_for
from neuroal.records.work import work_of

SEVEN = ModelShape(6.74e9, 4096, 11008, 32, 32000, 4096)
FULL = ["model.dtype=float16", "calibration.seqlen=2048", "task.names=[]"]
MEASURED_GIB = {
    "topup=uniform pruner=magnitude": 13.06,
    "topup=uniform": 15.82,
    "topup=uniform pruner=sparsegpt": 17.63,
    "topup=neuroal calibration.windows=8": 14.5,
    "topup=fisher calibration.windows=8": 19.6,
    "topup=fisher topup.form=elementwise calibration.windows=8": 33.49,
    "topup=marginal calibration.windows=8": 34.47,
    "topup=uniform offload=blocks": 3.29,
    "topup=neuroal calibration.windows=8 offload=blocks": 3.11,
    "topup=marginal calibration.windows=8 offload=blocks": 23.74,
}
"""Run of a 7B model → peak memory on a GPU, from results/benchmark.md."""
MEASURED_SECONDS = {
    "topup=neuroal topup.search=adaptive": 10.45,
    "topup=neuroal pruner=sparsegpt": 126.0,
    "topup=fisher": 7.0,
    "topup=marginal": 81.0,
    "topup=uniform": 10.82,
    "topup=uniform pruner=multiflow": 10.74,
    "topup=uniform pruner=sparsegpt": 25.5,
}
"""Run of a 7B model → seconds of its search or, with a uniform plan, of pruning by 128 windows."""
FEW = ["device=cpu", "calibration.windows=4", "calibration.seqlen=64", "task.limit=4"]


def work(*overrides: str) -> float:
    """Return the operations of allocation and pruning of a 7B model."""
    amounts = work_of(composed(["calibration.seqlen=2048", *overrides]), SEVEN)
    return sum(w for stage, w in amounts.items() if stage.startswith(("allocate", "prune")))


def test_a_search_prunes_once_per_candidate() -> None:
    alps = 2 * SEVEN.hidden * 260 * SEVEN.parameters
    pruning = work("pruner=alps", "topup=uniform") - work("pruner=wanda", "topup=uniform")
    assert pruning == pytest.approx(alps, rel=0.15)
    for topup, candidates in (("atp", 25), ("owl", 0)):
        more = work("pruner=alps", f"topup={topup}") - work("pruner=wanda", f"topup={topup}")
        assert more == pytest.approx((1 + candidates) * pruning)


def test_memory_follows_the_placement() -> None:
    run = composed(["calibration.seqlen=2048"])
    blocks = dataclasses.replace(run, offload="blocks")
    gib = {on: memory_of(c, SEVEN, True) / 2**30 for on, c in (("gpu", run), ("blocks", blocks))}
    assert 13 < gib["gpu"] < 40  # 12.6 GiB of weights, 4 GiB of hidden states, and a batch
    assert 2 < gib["blocks"] < gib["gpu"] / 2
    small = memory_of(composed(FEW), shape_of(composed(FEW).model), False)  # type: ignore[arg-type]
    assert 0.4 < small / 2**30 < 1.4


@pytest.mark.parametrize("overrides", MEASURED_GIB)
def test_memory_of_a_7b_model_is_within_a_factor_of_two(overrides: str) -> None:
    run = composed([*FULL, *overrides.split()])
    assert 0.5 < memory_of(run, SEVEN, True) / 2**30 / MEASURED_GIB[overrides] < 2


@pytest.mark.parametrize("overrides", MEASURED_SECONDS)
def test_seconds_of_a_7b_model_follow_from_a_dense_pass_and_one_search(overrides: str) -> None:
    """Rates: perplexity of 128 windows in 7.55 s, an exact search in 19.9 s on the same card."""
    search = work_of(composed([*FULL, "topup=neuroal"]), SEVEN)["allocate neuroal"]
    earlier = [
        Observation("card", "seven", "evaluate", 2 * SEVEN.parameters * 128 * 2048, 7.55),
        Observation("card", "seven", "allocate neuroal", search, 19.9),
    ]
    amounts = work_of(composed([*FULL, *overrides.split()]), SEVEN)
    kind = "prune" if "topup=uniform" in overrides else "allocate"
    stage = next(name for name in amounts if name.startswith(kind))
    estimated = seconds_for(stage, amounts[stage], "card", "seven", earlier)
    assert estimated is not None
    assert 0.5 < estimated[0] / MEASURED_SECONDS[overrides] < 2


def test_the_shape_of_a_model_comes_from_its_files_or_its_name() -> None:
    zoo = shape_of(composed([]).model)
    assert zoo is not None
    assert (zoo.hidden, zoo.blocks, zoo.vocabulary) == (160, 8, 4096)
    named = shape_of(composed(["model=llama-7b"]).model)
    assert named is not None
    assert named.hidden == pytest.approx(4096, rel=0.1)
    assert named.blocks == pytest.approx(32, rel=0.1)
