"""Reading records into frames: no result is mixed up, dropped or mislabelled."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from neuroal.config.schema import CalibrationConfig, SparsityConfig
from neuroal.errors import UserError
from neuroal.files.atomic import without_ratios
from neuroal.files.sealed import unsealed
from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables.cases import Case, Expected
from neuroal.tables.labels import label
from neuroal.tables.reading import read_records
from neuroal.tables.selection import Selection
from neuroal.tables.study import study
from tests.synthetic import fill, record


def test_a_row_is_one_task_of_a_run(tmp_path: Path) -> None:
    saved = record(tasks=("ptb", "rte"), competitor="owl", sparsity=0.6, seed=3)
    save_record(saved, tmp_path)
    results = read_records(tmp_path).results.set_index("task")
    assert list(results.index) == ["ptb", "rte"]
    assert results.loc["ptb", "value"] == saved.metrics["ptb"]["pruned"]["value"]
    assert results.loc["rte", "value"] == saved.metrics["rte"]["pruned"]["acc"]
    assert set(results["competitor"]) == {"owl"}
    assert set(results["sparsity"]) == {"60 %"}
    assert set(results["seed"]) == {3}


def test_only_the_ratios_of_the_plan_are_skipped(tmp_path: Path) -> None:
    path = save_record(record(competitor="neuroal"), tmp_path)
    text = path.read_text()
    short, full = json.loads(without_ratios(text)), json.loads(text)
    assert short["plan"]["ratios"] == {}
    assert full["plan"].pop("ratios")
    short["plan"].pop("ratios")
    assert short == full
    compact = json.dumps(full)
    assert without_ratios(compact) == compact


def test_results_on_part_of_a_task_need_a_request(tmp_path: Path) -> None:
    save_record(record(limit=8), tmp_path)
    with pytest.raises(UserError, match=r"task.limit=8.*--limited"):
        read_records(tmp_path)
    assert len(read_records(tmp_path, Selection(limited=True)).results) == 1
    named = Selection(overrides=(({"task.limit": 8},),))
    assert len(read_records(tmp_path, named).results) == 1
    with pytest.raises(UserError, match="--limited"):
        read_records(tmp_path, Selection(overrides=(({"task.limit": 9},),)))


def test_limited_results_beside_whole_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    save_record(record(competitor="owl", limit=8), tmp_path)
    save_record(record(competitor="uniform"), tmp_path)
    frames = read_records(tmp_path)
    assert list(frames.results["competitor"]) == ["uniform"]
    assert frames.left_out == 1
    assert any("left out" in note for note in study(tmp_path).notes)
    shown = study(tmp_path, Selection(limited=True))
    assert shown.notes[0].startswith("LIMITED: WikiText-2 on 8")


def test_a_substitute_never_has_the_name_of_the_real_set(tmp_path: Path) -> None:
    save_record(record(tasks=("c4_sample",)), tmp_path)
    expected = Expected(
        tuple(Case("zoo/llama", "wanda", "70 %", task) for task in ("c4", "c4_sample")),
        ("uniform",),
    )
    cells = study(tmp_path, expected=expected).cells.set_index("task")
    assert cells.loc["c4", "state"] == "missing"
    assert cells.loc["c4_sample", "state"] == "done"
    assert label("c4_sample") != label("c4")


def test_two_records_for_one_cell_are_refused_with_the_key_that_differs(
    tmp_path: Path,
) -> None:
    for windows in (8, 128):
        calibration = CalibrationConfig(name="c4_sample", windows=windows)
        save_record(record(calibration=calibration), tmp_path)
    with pytest.raises(UserError, match=r"calibration.windows \((8 and 128|128 and 8)\)"):
        study(tmp_path)
    chosen = Selection(overrides=(({"calibration.windows": 8},),))
    assert len(study(tmp_path, chosen).results) == 1


def test_bos_of_calibration_distinguishes_records_and_can_be_selected(tmp_path: Path) -> None:
    for bos in ("stream", "window"):
        calibration = CalibrationConfig(name="c4_sample", bos=bos)
        save_record(record(calibration=calibration), tmp_path)
    with pytest.raises(UserError, match=r"calibration.bos \((stream|window) and"):
        study(tmp_path)
    chosen = Selection(overrides=(({"calibration.bos": "window"},),))
    assert set(study(tmp_path, chosen).results["calibration.bos"]) == {"window"}


def test_bos_of_a_task_belongs_to_its_result(tmp_path: Path) -> None:
    for competitor, bos in (("uniform", "stream"), ("owl", "window")):
        saved = record(competitor=competitor, tasks=("ptb", "rte")).to_dict()
        saved["metrics"]["ptb"]["bos"] = bos
        save_record(Record.from_dict(saved), tmp_path)
    assert any(note.startswith("task.bos differs") for note in study(tmp_path).notes)
    chosen = read_records(tmp_path, Selection(overrides=(({"task.bos": "window"},),))).results
    assert set(chosen[chosen["task"] == "ptb"]["competitor"]) == {"owl"}
    assert set(chosen[chosen["task"] == "rte"]["competitor"]) == {"owl", "uniform"}


def test_every_record_of_a_grid_has_terms_of_its_own(tmp_path: Path) -> None:
    saved = []
    for model in ("zoo/llama", "gemma"):
        fields = record(model=model, tasks=("ptb",)).to_dict()
        fields["metrics"]["ptb"]["bos"] = "window"
        saved.append(Record.from_dict(fields))
        save_record(saved[-1], tmp_path)
    terms = {
        one.identity: {"task.bos": bos, "task.seqlen": 256}
        for one, bos in zip(saved, ("stream", "window"), strict=True)
    }
    results = read_records(tmp_path, Selection(terms=terms)).results
    assert list(results["model"]) == ["gemma"]  # the other was evaluated on other terms


def test_a_nan_figure_is_the_worst_figure_not_a_missing_one(tmp_path: Path) -> None:
    fields = record().to_dict()
    fields["metrics"]["wikitext2"]["pruned"]["value"] = math.nan
    save_record(Record.from_dict(fields), tmp_path)
    cell = study(tmp_path).cells.iloc[0]
    assert (cell["value"], cell["state"]) == (math.inf, "done")


@pytest.mark.parametrize("costs", ["seconds", "peak_bytes"])
def test_costs_that_are_no_numbers_give_one_line(tmp_path: Path, costs: str) -> None:
    saved = record()
    broken = {**saved.costs, costs: {**saved.costs[costs], "prune": None}}
    save_record(dataclasses.replace(saved, costs=broken), tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(float.*; move it away"):
        read_records(tmp_path)


def test_curves_contain_the_candidates_with_a_criterion(tmp_path: Path) -> None:
    fields = record(competitor="neuroal").to_dict()
    criteria = fields["plan"]["report"]["criterion_block"]
    criteria[0] = criteria[3] = None
    save_record(Record.from_dict(fields), tmp_path)
    (entry,) = read_records(tmp_path).curves
    block, row = entry.curves
    assert block.candidates == (0.02, 0.05, 0.15, 0.2)
    assert block.criteria == (criteria[1], criteria[2], *criteria[4:])
    assert len(row.candidates) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"version": 2', '"version": 9'), "schema 9"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"identity": "', '"identity": "0'), "its identity is"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "does not match its digest"),
    ],
)
def test_an_invalid_record_is_named(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = save_record(record(), tmp_path)
    sealed = path.read_text()
    path.write_text(change(sealed if "digest" in message else unsealed(sealed)))
    with pytest.raises(UserError, match=message) as raised:
        read_records(tmp_path)
    assert path.name in str(raised.value)


@pytest.mark.parametrize(
    ("ratio", "pattern", "rules", "overall", "is_read"),
    [
        (0.7, (None, None), "exact", 0.7, True),
        (0.7, (None, None), "exact", 0.7004, True),
        (0.7, (None, None), "exact", 0.0, False),
        (0.7, (None, None), "exact", 0.6936, False),
        (0.7, (None, None), "reference", 0.693, True),
        (0.7, (None, None), "reference", 0.0, False),
        (0.5, (2, 4), "exact", 0.5, True),
        (0.5, (2, 4), "exact", 0.25, False),
        (0.55, (None, 4), "exact", 0.5625, True),
        (0.9, (None, 4), "exact", 0.75, True),
        (0.6, (None, 4), "exact", 0.5, False),
        (0.7, (None, None), "exact", math.nan, False),
        (0.7, (None, None), "exact", 1.5, False),
    ],
)
def test_a_record_whose_masks_are_not_its_budget_is_refused(
    tmp_path: Path,
    ratio: float,
    pattern: tuple[int | None, int | None],
    rules: str,
    overall: float,
    is_read: bool,
) -> None:
    sparsity = SparsityConfig(ratio, *pattern)
    fields = record(sparsity=ratio, rules=rules).to_dict()
    fields["config"]["sparsity"] = dataclasses.asdict(sparsity)
    fields["sparsity"] = {
        "overall": overall,
        "linears": dict.fromkeys(fields["sparsity"]["linears"], overall),
    }
    path = save_record(Record.from_dict(fields), tmp_path)
    if is_read:
        assert len(read_records(tmp_path).runs) == 1
        return
    with pytest.raises(UserError) as raised:
        read_records(tmp_path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_total_that_is_not_the_mean_of_its_linears_is_refused(tmp_path: Path) -> None:
    fields = record().to_dict()
    fields["sparsity"]["linears"] = dict.fromkeys(fields["sparsity"]["linears"], 0.0)
    save_record(Record.from_dict(fields), tmp_path)
    with pytest.raises(UserError, match=r"0\.7000 pruned weights is not the mean of its linears"):
        read_records(tmp_path)


def test_a_missing_folder_and_a_folder_without_records_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_records(tmp_path / "nowhere")
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(UserError, match="holds no records"):
        read_records(tmp_path)


def test_reading_in_parallel_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, sparsities=(0.7,), tasks=("ptb",))
    alone = read_records(tmp_path)
    monkeypatch.setattr("neuroal.tables.reading.FEW", 0)
    parallel = read_records(tmp_path)
    assert parallel.results.equals(alone.results)
    assert parallel.curves == alone.curves
