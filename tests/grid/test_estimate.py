"""Estimates of time come from earlier runs of the same card, those of memory from the placement."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroal.cli.compose import composed
from neuroal.cli.grid import grid_command
from neuroal.config.schema import RunConfig
from neuroal.grid.estimate import config_of, estimate
from neuroal.models.shape import ModelShape, shape_of
from neuroal.records import rates
from neuroal.records.identity import environment
from neuroal.records.memory import memory_of
from neuroal.records.rates import (
    Observation,
    keep,
    kept_observations,
    seconds_by_parts,
    seconds_for,
    seconds_once,
)
from neuroal.records.work import parts_of, work_of

CARD = str(environment(torch.device("cpu"))["device"])
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


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep rates in an empty folder."""
    monkeypatch.setenv(rates.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no estimate load a model."""

    def load(*arguments: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("neuroal.models.load.read_whole", load)


def config(tmp_path: Path, *overrides: str) -> RunConfig:
    return composed([*FEW, f"out={tmp_path / 'out'}", *overrides])


def keep_rates(config: RunConfig, factor: float, card: str = CARD) -> float:
    """Keep a run of `config` whose stages take `factor` seconds per unit of work; return its time.

    The seconds are those of a run that evaluates the dense and the pruned model.
    """
    shape = shape_of(config.model)
    assert shape is not None
    work = work_of(config, shape)
    path = config.model.path
    keep(Observation(card, path, stage, w, w * factor) for stage, w in work.items() if w)
    return factor * (sum(work.values()) + work["evaluate"])


def test_a_card_without_earlier_runs_is_unknown(tmp_path: Path) -> None:
    run = config(tmp_path, "topup=uniform")
    keep_rates(run, 1e-9, card="another card")
    assert estimate([run]).seconds is None


def test_runs_of_the_same_model_and_card_decide(tmp_path: Path) -> None:
    run = config(tmp_path, "topup=owl")
    spent = keep_rates(run, 1e-9)
    keep_rates(config(tmp_path, "topup=owl", "model=zoo/opt"), 5e-8)
    left = estimate([run])
    assert (left.runs, left.measured, left.device) == (1, 1, CARD)
    assert left.seconds == pytest.approx(spent)
    more = dataclasses.replace(run, sparsity=dataclasses.replace(run.sparsity, ratio=0.5))
    dense = 1e-9 * work_of(run, shape_of(run.model))["evaluate"]  # type: ignore[arg-type]
    assert estimate([run, more]).seconds == pytest.approx(2 * spent - dense)


def test_another_model_of_the_card_gives_the_rate(tmp_path: Path) -> None:
    keep_rates(config(tmp_path, "topup=owl", "model=zoo/opt"), 2e-9)
    left = estimate([config(tmp_path, "topup=owl", "model=zoo/llama")])
    assert left.measured == 0
    assert left.seconds is not None


def test_a_new_method_is_estimated_by_forward_passes() -> None:
    earlier = [Observation("card", "m", "evaluate", 100.0, 1.0)]
    assert seconds_for("prune wanda", 300.0, "card", "m", earlier) == (pytest.approx(3.0), False)


def test_a_small_model_says_nothing_about_a_large_one() -> None:
    small = [Observation("card", "small", "evaluate", 1.0, 1.0)]
    assert seconds_for("evaluate", 30.0, "card", "m", small) == (pytest.approx(30.0), False)
    assert seconds_for("evaluate", 31.0, "card", "m", small) is None
    assert seconds_for("evaluate", 31.0, "card", "small", small) == (pytest.approx(31.0), True)


def test_a_dense_pass_of_the_model_counts_more_than_the_method_on_small_models() -> None:
    earlier = [
        Observation("card", "small", "prune wanda", 1.0, 1.0),
        Observation("card", "m", "evaluate", 10.0, 0.1),
    ]
    estimated = seconds_for("prune wanda", 1000.0, "card", "m", earlier)
    assert estimated == (pytest.approx(10.0), False)


def test_the_nearest_amount_of_work_counts() -> None:
    earlier = [Observation("card", "m", "evaluate", 10.0**n, 10.0**-n) for n in range(9)]
    assert seconds_for("evaluate", 1e4, "card", "m", earlier) == (pytest.approx(1e-4), True)


def test_a_run_with_a_similar_amount_of_work_counts_more_than_others() -> None:
    earlier = [Observation("card", "m", "evaluate", *pair) for pair in ((1.0, 1.0), (90.0, 9.0))]
    assert seconds_for("evaluate", 100.0, "card", "m", earlier) == (pytest.approx(10.0), True)


def test_parts_that_were_measured_add_up() -> None:
    measured = [
        Observation("card", "m", "pass", 10.0, 1.0),
        Observation("card", "m", "task rte", 1.0, 3.0),
        Observation("other card", "m", "pass", 10.0, 7.0),
        Observation("card", "other model", "pass", 10.0, 7.0),
    ]
    parts = {"pass": 20.0, "task rte": 1.0}
    stage = ("evaluate", 100.0, parts, "card", "m")
    assert seconds_by_parts(*stage, measured) == pytest.approx(5.0)
    assert seconds_by_parts(*stage, measured[:1]) is None
    similar = Observation("card", "m", "evaluate", 50.0, 1.0)
    other = Observation("card", "m", "evaluate", 5.0, 1.0)
    assert seconds_by_parts(*stage, [*measured, similar]) is None
    assert seconds_by_parts(*stage, [*measured, other]) == pytest.approx(5.0)
    assert seconds_by_parts("allocate uniform", 0.0, {}, "card", "m", []) == 0.0


def test_a_process_compiles_and_imports_once() -> None:
    measured = [
        Observation("card", "m", "first evaluate", 1.0, 4.0),
        Observation("card", "other", "first evaluate", 1.0, 5.0),
    ]
    assert seconds_once("evaluate", "card", "m", measured) == 4.0
    assert seconds_once("evaluate", "card", "third", measured) == 5.0
    assert seconds_once("prune wanda", "card", "m", measured) == 0.0


PARTS = {
    "load": 2.0,
    "calibrate builtin": 5.0,
    "search owl": 3.0,
    "pruning wanda": 7.0,
    "pass": 0.0,
    "step": 0.0,
    "fingerprint": 1.0,
    "task rte": 10.0,
    "documents": 20.0,
    "first evaluate": 40.0,
    "first prune wanda": 80.0,
}
"""Measured part → its seconds in the run `measured_run`."""


def measured_run(tmp_path: Path, *overrides: str) -> RunConfig:
    tasks = "task.names=[wikitext2,rte]"
    return config(tmp_path, "topup=owl", "task.limit=8", tasks, *overrides)


def measured_parts(run: RunConfig) -> list[Observation]:
    shape = shape_of(run.model)
    assert shape is not None
    amounts = {
        name: work for parts in parts_of(run, shape).values() for name, work in parts.items()
    }
    amounts["fingerprint"] = shape.parameters
    return [
        Observation(CARD, run.model.path, name, amounts.get(name, 1.0), seconds)
        for name, seconds in PARTS.items()
    ]


def test_reading_texts_tasks_documents_and_first_executions_count(tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    parts = measured_parts(run)
    evaluation = 10.0 + 20.0
    once = 1.0 + evaluation + 40.0 + 80.0  # the dense model, imports and compiling
    one = 2.0 + 5.0 + 3.0 + 7.0 + evaluation
    assert estimate([run], parts).seconds == pytest.approx(one + once)
    other = dataclasses.replace(run, seed=1)
    assert estimate([run, other], parts).seconds == pytest.approx(2 * one + once)


def test_more_documents_take_longer_but_a_task_has_a_fixed_time(tmp_path: Path) -> None:
    parts = measured_parts(measured_run(tmp_path))
    few, many = (
        estimate([measured_run(tmp_path, f"task.limit={limit}")], parts).seconds
        for limit in (8, 16)
    )
    assert few is not None
    assert many is not None
    assert many - few == pytest.approx(2 * 20.0)


def test_pruning_by_more_windows_adds_forward_passes_alone(tmp_path: Path) -> None:
    parts = measured_parts(measured_run(tmp_path))
    few, many = (
        estimate([measured_run(tmp_path, f"calibration.windows={windows}")], parts).seconds
        for windows in (4, 64)
    )
    assert many == pytest.approx(few)  # passes take no time here


@pytest.mark.parametrize(
    ("overrides", "stage", "parts"),
    [
        ("topup=neuroal", "allocate neuroal", {"search neuroal"}),
        ("topup=alpha", "allocate alphapruning", {"search alphapruning"}),
        ("topup=uniform", "allocate uniform", set()),
        (
            "topup=neuroal pruner=sparsegpt",
            "allocate neuroal sparsegpt",
            {"pass", "pruning sparsegpt"},
        ),
        ("refine=dsnot", "prune wanda dsnot", {"pruning wanda dsnot", "pass"}),
        ("task.names=[ptb,boolq]", "evaluate", {"pass", "step", "task boolq", "documents"}),
    ],
)
def test_a_stage_consists_of_measured_parts(overrides: str, stage: str, parts: set[str]) -> None:
    run = composed([*FEW, *overrides.split()])
    shape = shape_of(run.model)
    assert shape is not None
    by_stage = parts_of(run, shape)
    assert by_stage.keys() == work_of(run, shape).keys()
    assert {name for name, amount in by_stage[stage].items() if amount} == parts


def test_observations_of_workers_that_end_together_are_all_kept() -> None:
    def keep_many(worker: int) -> None:
        for number in range(20):
            keep([Observation("card", "m", "load", worker + 1.0, number + 1.0)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_many, range(4)))
    assert len(kept_observations()) == 80


def test_the_file_of_observations_does_not_grow_without_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "MOST_LINES", 3)
    for number in range(20):
        assert keep([Observation("card", "m", "load", 1.0, float(number))])
    seconds = [o.seconds for o in kept_observations()]
    assert len(seconds) <= 6
    assert seconds[-1] == 19.0


def test_a_line_that_was_cut_off_spoils_no_later_one(cache: Path) -> None:
    cache.mkdir()
    rates.rates_path().write_text('{"card": "ca')
    keep([Observation("card", "m", "load", 1.0, 1.0)])
    assert [o.card for o in kept_observations()] == ["card"]


def test_lines_of_another_layout_are_left_out(cache: Path) -> None:
    keep([Observation("card", "m", "load", 1.0, 1.0)])
    with rates.rates_path().open("a") as file:
        file.write("{}\nnonsense\n")
    assert [o.card for o in kept_observations()] == ["card"]


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


def test_a_record_s_configuration_is_read_back(tmp_path: Path) -> None:
    run = config(tmp_path)
    assert config_of(dataclasses.asdict(run)) == run
    assert config_of({**dataclasses.asdict(run), "later": 1}) is None


def test_plan_prints_json_and_loads_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["experiment=zoo", "model=zoo/llama", "pruner=wanda", "topup=owl", "sparsity=s60"]
    keep_rates(config(tmp_path, "topup=owl"), 1e-9)
    grid_command(["plan", "--json", "device=cpu", f"out={tmp_path / 'none'}", *grid])
    content = json.loads(capsys.readouterr().out)
    assert content["states"] == {"done": 0, "running": 0, "failed": 0, "missing": 1}
    assert content["runs"][0]["choices"]["topup"] == "owl"
    assert content["left"]["seconds"] > 0
    assert not (tmp_path / "none").exists()
