"""A folder of records as one study: the cells, all tables, what is missing."""

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
from neuroal.tables.labels import label
from neuroal.tables.paper import perplexity_table, zero_shot_table
from neuroal.tables.reading import Found, read_records
from neuroal.tables.runtime import costs, runtime_table, trade_off, trade_off_table
from neuroal.tables.selection import Selection
from neuroal.tables.table import Cell, Table
from neuroal.tables.wins import duels, wins_table


@dataclass(frozen=True)
class Study:
    """Everything that tables and report are made of.

    Attributes:
        expected: cases, competitors and seeds there should be.
        all: everything in the records, also what was not expected.
        found: results that answer expected cases.
        cells: one row for each expected case and competitor.
        paid: one row for each run behind `found`.
    """

    expected: Expected
    all: Found
    found: pd.DataFrame
    cells: pd.DataFrame
    paid: pd.DataFrame

    @property
    def counted(self) -> pd.DataFrame:
        """The cells of counted cases."""
        return self.cells[~self.cells["task"].isin(self.expected.beside)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of any table must know."""
        missing = missing_notes(self.counted, self.all.left_out)
        return (*limit_notes(self.found), *missing, *settings_notes(self.found))

    def trade(self) -> pd.DataFrame:
        """See `runtime.trade_off`."""
        return trade_off(self.paid, self.found, self.expected)


def study(
    folder: str | Path, selection: Selection | None = None, expected: Expected | None = None
) -> Study:
    """Read the records of `folder`.

    Args:
        expected: the declaration; None: all cases, competitors and seeds that are found.

    Raises:
        UserError: see `read_records` and `cases.relevant`; or nothing expected was found.
    """
    everything = read_records(folder, selection)
    expected = expected or expected_from(everything.results)
    found = relevant(everything.results, expected)
    if found.empty:
        raise UserError(
            f"out={folder}: none of its {len(everything.results)} results answers a declared case"
        )
    paid = costs(everything.runs, found)
    return Study(expected, everything, found, cells(found, expected), paid)


def tables(of: Study) -> list[Table]:
    """The paper's tables, in order: perplexity by text, zero-shot, wins, runtime, what is missing.

    All carry the study's notes.
    """
    kinds = of.cells.drop_duplicates("task").set_index("task")["kind"]
    texts = [task for task in of.expected.axis("task") if kinds[task] == "perplexity"]
    made = [perplexity_table(of.cells, task, of.expected) for task in texts]
    if (kinds == "zero_shot").any():
        made.append(zero_shot_table(of.cells, of.found, of.expected))
    if len(of.expected.competitors) > 1:
        made.append(wins_table(duels(of.found, of.expected)))
    made += [runtime_table(of.paid, of.expected), trade_off_table(of.trade())]
    noted = [_with_notes(table, of) for table in made]
    return [*noted, missing_table(of.cells)]


def _with_notes(table: Table, of: Study) -> Table:
    """The notes of the part that a table shows, after its own."""
    if "state" not in table.data:
        return dataclasses.replace(table, notes=(*table.notes, *of.notes))
    tasks = set(table.data["task"])
    found = of.found[of.found["task"].isin(tasks)]
    own = (*limit_notes(found), *missing_notes(table.data), *settings_notes(found))
    return dataclasses.replace(table, notes=(*table.notes, *own))


def missing_table(table: pd.DataFrame) -> Table:
    """Every cell that is missing or has fewer seeds than asked for.

    Args:
        table: from `cases.cells`.
    """
    part = table[table["state"] != "done"]
    columns = [*CELL, "seeds", "wanted", "why"]
    rows = [
        (
            *(Cell(label(str(row[name]))) for name in CELL),
            Cell(f"{row['seeds']} of {row['wanted']}", float(row["seeds"])),
            Cell(str(row["why"])),
        )
        for _, row in part.iterrows()
    ]
    return Table(
        name="missing",
        title=f"Missing: {len(part):,} of {len(table):,} cells",
        heads=("Model", "Pruner", "Sparsity", "Task", "Top-up", "Seeds", "Why it cannot be run"),
        labels=5,
        rows=tuple(rows),
        data=part[columns].reset_index(drop=True),
    )


def named(found: Sequence[Table], name: str) -> Table:
    """The table of that name."""
    return next(table for table in found if table.name == name)
