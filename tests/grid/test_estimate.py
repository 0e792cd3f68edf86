"""Estimates of time come from earlier runs of the same card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroal.cli.compose import composed
from neuroal.cli.grid import grid_command
from neuroal.config.schema import RunConfig
from neuroal.grid.estimate import config_of, estimate
from neuroal.models.shape import shape_of
from neuroal.records import rates
from neuroal.records.identity import environment
from neuroal.records.rates import (
    Observation,
    keep,
    seconds_by_parts,
    seconds_for,
    seconds_once,
)
from neuroal.records.work import parts_of, work_of

CARD = str(environment(torch.device("cpu"))["device"])
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
