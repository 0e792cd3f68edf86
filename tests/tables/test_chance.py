"""Tasks on which the dense model guesses are marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables.chance import MARK, NOTE, at_chance
from neuroal.tables.study import named, study, tables
from neuroal.tables.table import Table
from tests.synthetic import record

TASKS = ("rte", "hellaswag", "openbookqa")


def zero_shot(folder: Path, dense: dict[str, tuple[float, float]], **options: Any) -> Table:
    """Save records with dense accuracies and standard errors; return their zero-shot table."""
    for name in ("uniform", "owl"):
        fields = record(competitor=name, tasks=TASKS, **options).to_dict()
        for task, (accuracy, error) in dense.items():
            fields["metrics"][task]["dense"] |= {"acc": accuracy, "acc_stderr": error}
        save_record(Record.from_dict(fields), folder)
    return named(tables(study(folder)), "zero-shot")


def test_a_task_at_chance_is_marked_within_two_standard_errors(tmp_path: Path) -> None:
    dense = {"rte": (0.58, 0.03), "hellaswag": (0.30, 0.02), "openbookqa": (0.30, 0.03)}
    table = zero_shot(tmp_path, dense)
    assert table.heads[4:7] == (f"RTE{MARK}", "HellaSwag", f"OBQA{MARK}")
    assert [cell.text for cell in table.rows[0][4:7]] == [f"58.00{MARK}", "30.00", f"30.00{MARK}"]
    assert table.rows[0][4].value == 0.58
    assert NOTE in table.notes


def test_models_are_marked_apart_and_heads_only_for_all(tmp_path: Path) -> None:
    fine = {"rte": (0.8, 0.03), "hellaswag": (0.6, 0.02), "openbookqa": (0.25, 0.02)}
    zero_shot(tmp_path, fine | {"rte": (0.5, 0.03)})
    table = zero_shot(tmp_path, fine, model="gemma")
    assert table.heads[4:7] == ("RTE", "HellaSwag", f"OBQA{MARK}")
    dense = {row[0].text: row[4].text for row in table.rows if row[3].text == "dense"}
    assert dense == {"zoo/llama": f"50.00{MARK}", "gemma": "80.00"}


def test_models_above_chance_have_no_mark(tmp_path: Path) -> None:
    table = zero_shot(tmp_path, dict.fromkeys(TASKS, (0.9, 0.01)))
    assert not any(MARK in cell.text for row in table.rows for cell in row)
    assert NOTE not in table.notes
    assert not at_chance(study(tmp_path).results)
