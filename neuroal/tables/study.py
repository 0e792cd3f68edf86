"""A folder of records as a study: cells, tables and missing results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuroal.errors import UserError
from neuroal.tables.cases import (
    CELL,
    Expected,
    cells,
    expected_from,
    limit_notes,
    missing_notes,
    relevant,
    settings_notes,
)
from neuroal.tables.combinations import combinations_table
from neuroal.tables.paper import perplexity_table, zero_shot_table
from neuroal.tables.reading import RecordFrames, read_records
from neuroal.tables.relative import relative_table, relative_to_uniform
from neuroal.tables.runtime import costs, runtime_table, trade_off, trade_off_table
from neuroal.tables.selection import Selection
from neuroal.tables.table import Cell, Table, label_cells
from neuroal.tables.win_tables import pairs_table, wins_table
from neuroal.tables.wins import duels


@dataclass(frozen=True)
class Study:
    """The data of all tables and of the report.

    Attributes:
        frames: all selected records, including results that are not expected.
        results: results of expected cases, from `cases.relevant`.
        cells: one row for each expected case and competitor, from `cases.cells`.
        costs: one row for each run with `results`, from `runtime.costs`.
    """

    expected: Expected
    frames: RecordFrames
    results: pd.DataFrame
    cells: pd.DataFrame
    costs: pd.DataFrame

    @property
    def counted(self) -> pd.DataFrame:
        return self.cells[~self.cells["task"].isin(self.expected.beside)]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the whole study: limits, missing results, settings."""
        missing = missing_notes(self.counted, self.frames.left_out)
        return (*limit_notes(self.results), *missing, *settings_notes(self.results))

    def trade(self) -> pd.DataFrame:
        """Return performance against runtime; see `runtime.trade_off`."""
        return trade_off(self.costs, self.results, self.expected)


def study(
    folder: str | Path, selection: Selection | None = None, expected: Expected | None = None
) -> Study:
    """Read the selected records of `folder`; None expects what has results.

    Raises:
        UserError: as in `read_records` and `cases.relevant`; or no result is expected.
    """
    frames = read_records(folder, selection)
    expected = expected or expected_from(frames.results)
    results = relevant(frames.results, expected)
    if results.empty:
        raise UserError(
            f"out={folder}: none of its {len(frames.results)} results answers a declared case"
        )
    return Study(
        expected=expected,
        frames=frames,
        results=results,
        cells=cells(results, expected),
        costs=costs(frames.runs, results),
    )


def tables(study: Study) -> list[Table]:
    """Return all tables of a study, with its notes."""
    kinds = study.cells.drop_duplicates("task").set_index("task")["kind"]
    texts = [task for task in study.expected.axis("task") if kinds[task] == "perplexity"]
    parts = [perplexity_table(study.cells, task, study.expected) for task in texts]
    if len(study.expected.axis("pruner")) > 1 and len(study.expected.competitors) > 1:
        parts += [
            combinations_table(study.cells, study.costs, task, study.expected) for task in texts
        ]
    if (kinds == "zero_shot").any():
        parts.append(zero_shot_table(study.cells, study.results, study.expected))
    relative = relative_to_uniform(study.results, study.expected)
    if relative["competitor"].nunique() > 1:
        parts.append(relative_table(relative, study.expected))
    if len(study.expected.competitors) > 1:
        comparisons = duels(study.results, study.expected)
        parts.append(wins_table(comparisons, study.expected.competitors))
        parts.append(pairs_table(comparisons))
    parts += [runtime_table(study.costs, study.expected), trade_off_table(study.trade())]
    parts = [_with_notes(table, study) for table in parts]
    return [*parts, missing_table(study.cells)]


def _with_notes(table: Table, study: Study) -> Table:
    """Return `table` with the notes on the part of the study that it shows."""
    notes = study.notes
    if "state" in table.data:
        results = study.results[study.results["task"].isin(table.data["task"])]
        notes = (*limit_notes(results), *missing_notes(table.data), *settings_notes(results))
    return dataclasses.replace(table, notes=(*table.notes, *notes))


def missing_table(frame: pd.DataFrame) -> Table:
    """Return the cells that are missing or have fewer seeds than expected."""
    part = frame[frame["state"] != "done"]
    columns = [*CELL, "seeds", "wanted", "why"]
    rows = [
        (
            *label_cells(*row[CELL]),
            Cell(f"{row['seeds']} of {row['wanted']}", float(row["seeds"])),
            Cell(str(row["why"])),
        )
        for _, row in part.iterrows()
    ]
    return Table(
        name="missing",
        title=f"Missing: {len(part):,} of {len(frame):,} cells",
        heads=("Model", "Pruner", "Sparsity", "Task", "Top-up", "Seeds", "Why it cannot be run"),
        labels=5,
        rows=tuple(rows),
        data=part[columns].reset_index(drop=True),
    )


def named(tables: Sequence[Table], name: str) -> Table:
    """Return the table called `name`."""
    return next(table for table in tables if table.name == name)
