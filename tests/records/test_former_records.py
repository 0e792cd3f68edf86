"""Records of version 0.1 are read by the tables and by Python callers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroal.records.store import load_record
from neuroal.sparsity.plan import SparsityPlan
from neuroal.tables import formats
from neuroal.tables.reading import read_records
from neuroal.tables.selection import Selection
from neuroal.tables.study import study, tables

FOLDER = Path(__file__).parents[1] / "data" / "records_0_1"
"""Written by version 0.1: uniform, early_out, a plan file under its former import path, a
refinement."""
EARLY_OUT = "81e2ba2f8ffa6266"
COMPETITORS = {
    "uniform",
    "neuroal(search=early_out, step=block)",
    "plan(path=plan.json)",
    "owl+dsnot",
}


def test_the_tables_name_all_methods() -> None:
    frames = read_records(FOLDER, Selection(limited=True))
    assert set(frames.results["competitor"]) == COMPETITORS
    assert set(frames.results["task.bos"]) == set(frames.results["calibration.bos"]) == {"stream"}
    chosen = Selection(limited=True, overrides=(({"calibration.bos": "stream"},),))
    assert len(read_records(FOLDER, chosen).results) == len(frames.results)
    assert (frames.results["value"] > frames.results["dense"]).all()


def test_candidates_that_early_out_gave_up_are_left_out_of_its_curve(tmp_path: Path) -> None:
    record = json.loads((FOLDER / f"{EARLY_OUT}.json").read_text())
    report = record["plan"]["report"]
    # As version 0.1 wrote a candidate that it gave up: no criterion, and what was known by then.
    report["partial_block"] = [None] * 13 + [report["criterion_block"][13]]
    report["criterion_block"][13] = None
    (tmp_path / f"{EARLY_OUT}.json").write_text(json.dumps(record))
    (run,) = read_records(tmp_path, Selection(limited=True)).curves
    (curve,) = run.curves
    assert curve.winner in curve.candidates
    assert len(curve.candidates) == len(curve.criteria) == 13


def test_paper_tables_are_made(tmp_path: Path) -> None:
    written = formats.write(tables(study(FOLDER, Selection(limited=True))), tmp_path)
    assert any("NeuroAL" in path.read_text() for path in written if path.suffix == ".md")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_records_and_their_plans_can_be_loaded(path: Path) -> None:
    record = load_record(path)
    assert record.identity == path.stem
    plan = SparsityPlan.from_dict(json.loads(path.read_text())["plan"])
    assert plan.sparsity == pytest.approx(0.7)
