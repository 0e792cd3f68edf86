"""The cells of all tables: what was expected, joined with what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import pandas as pd

from neuroal.errors import UserError
from neuroal.tables.labels import in_order, label
from neuroal.tables.reading import SETTINGS
from neuroal.validation import PERPLEXITY_SETS


class Case(NamedTuple):
    """Where competitors meet: one model, pruner, sparsity and task."""

    model: str
    pruner: str
    sparsity: str
    task: str


SHARED = "All:"
"""How the note begins that says what all results have in common."""
CASE = list(Case._fields)
CELL = [*CASE, "competitor"]


@dataclass(frozen=True)
class Expected:
    """What there should be: each competitor answers each case with each seed.

    Attributes:
        cases: in the order of the tables.
        competitors: as `records.naming.competitor` calls them, in the order of the tables.
        seeds: an axis like the others.
        unavailable: why a case cannot be run here; such a case is missing all the same.
        beside: tasks that have tables, but no part in wins, means over cases and counts.
    """

    cases: tuple[Case, ...]
    competitors: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    unavailable: Mapping[Case, str] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()

    @property
    def counted(self) -> tuple[Case, ...]:
        """The cases that are counted: all but those of the tasks that stand beside."""
        return tuple(case for case in self.cases if case.task not in self.beside)

    def axis(self, name: str) -> list[str]:
        """Distinct values of one field of the cases, in order."""
        return list(dict.fromkeys(getattr(case, name) for case in self.cases))


def expected_from(results: pd.DataFrame) -> Expected:
    """Without a declaration: all cases found, of all competitors and seeds found."""
    ratios = results.drop_duplicates("sparsity").sort_values(["ratio", "sparsity"])["sparsity"]
    tasks = results.drop_duplicates(["model", "pruner", "sparsity", "task"])
    have = set(tasks[CASE].itertuples(index=False, name=None))
    axes = (in_order(results["model"]), in_order(results["pruner"]), list(ratios))
    return Expected(
        cases=tuple(
            Case(*case) for case in product(*axes, in_order(results["task"])) if case in have
        ),
        competitors=tuple(in_order(results["competitor"])),
        seeds=tuple(sorted({int(seed) for seed in results["seed"]})),
    )


def relevant(results: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """The results that answer an expected case, at most one for each case, competitor and seed.

    Raises:
        UserError: two records answer the same; names the key in which they differ.
    """
    keys = pd.MultiIndex.from_tuples(expected.cases, names=CASE)
    found = results[
        pd.MultiIndex.from_frame(results[CASE]).isin(keys)
        & results["competitor"].isin(expected.competitors)
        & results["seed"].isin(expected.seeds)
    ]
    twice = found[found.duplicated([*CELL, "seed"], keep=False)]
    if len(twice):
        first = twice.sort_values([*CELL, "seed", "identity"]).iloc[:2]
        raise UserError(_two_answers(first))
    return found.sort_values([*CELL, "seed"], ignore_index=True)


def _two_answers(pair: pd.DataFrame) -> str:
    one, two = (row for _, row in pair.iterrows())
    what = " ".join(str(one[name]) for name in (*CELL, "seed"))
    records = f"records {one['identity']} and {two['identity']}"
    for key in SETTINGS:
        if repr(one[key]) != repr(two[key]):
            values = f"{_plain(one[key])} and {_plain(two[key])}"
            return (
                f"{what}: {records} differ in {key} ({values}); "
                f"say which, as in {key}={_plain(one[key])}"
            )
    return f"{what}: {records} both answer; move one away"


def _plain(value: object) -> str:
    if value is None or value != value:
        return "null"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def cells(found: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """One row for each expected case and competitor, found or not.

    Args:
        found: from `relevant`.

    Returns:
        `CELL`, ``value`` (mean over seeds), ``deviation`` (over seeds, n − 1; NaN for one),
        ``stderr`` (of the measurement, where there is one seed), ``dense``, ``seeds`` (found),
        ``wanted`` (seeds), ``records`` (identities), ``state`` (``done``, ``partial`` or
        ``missing``) and ``why`` a case cannot be run.
    """
    grouped = found.groupby(CELL, sort=False)
    table = grouped.agg(
        value=("value", "mean"),
        deviation=("value", "std"),
        stderr=("stderr", "first"),
        seeds=("seed", "count"),
        records=("identity", " ".join),
    )
    dense = found.drop_duplicates(["model", "task"]).set_index(["model", "task"])["dense"]
    index = pd.MultiIndex.from_tuples(
        [(*case, name) for case in expected.cases for name in expected.competitors], names=CELL
    )
    table = table.reindex(index).reset_index()
    kinds = kinds_of(found)
    table["dense"] = dense.reindex(pd.MultiIndex.from_frame(table[["model", "task"]])).to_numpy()
    table["kind"] = [str(kinds.get(task, kind_of(task))) for task in table["task"]]
    table["seeds"] = table["seeds"].fillna(0).astype(int)
    table["wanted"] = len(expected.seeds)
    table["records"] = table["records"].fillna("")
    table.loc[table["seeds"] > 1, "stderr"] = float("nan")
    table["state"] = [
        "missing" if not got else "partial" if got < len(expected.seeds) else "done"
        for got in table["seeds"]
    ]
    why = expected.unavailable
    table["why"] = [
        why.get(Case(*case), "") for case in table[CASE].itertuples(index=False, name=None)
    ]
    return table


def kinds_of(found: pd.DataFrame) -> pd.Series:
    """Task → kind, of the tasks that have results."""
    return found.drop_duplicates("task").set_index("task")["kind"]


def kind_of(task: str) -> str:
    """Kind of a task that no record has answered."""
    return "perplexity" if task in PERPLEXITY_SETS else "zero_shot"


def settings_notes(found: pd.DataFrame) -> list[str]:
    """What all results share, and what they do not: ``rules=exact``, ``calibration.windows=8``…"""
    notes, shared = [], []
    for key in SETTINGS:
        if key.startswith("model.") or key == "task.limit":
            continue
        known = found[found[key].notna()]
        values = {_plain(value) for value in known[key]} - {""}
        if len(values) == 1:
            shared.append(f"{key}={values.pop()}")
        elif len(values) > 1:
            notes.append(_differing(known, key))
    return [*([f"{SHARED} {', '.join(shared)}."] if shared else []), *notes]


def _differing(found: pd.DataFrame, key: str) -> str:
    by = "task" if key.startswith("task.") else "competitor"
    groups: dict[str, list[str]] = {}
    for name, part in found.groupby(by, sort=True):
        values = "/".join(sorted({_plain(value) for value in part[key]}))
        groups.setdefault(values, []).append(label(str(name)))
    listed = "; ".join(f"{values} for {', '.join(names)}" for values, names in groups.items())
    return f"{key} differs: {listed}."


def missing_notes(table: pd.DataFrame, left_out: int = 0) -> list[str]:
    """How many cells are missing, and why, as far as that is known."""
    wanted, found = int(table["wanted"].sum()), int(table["seeds"].sum())
    notes = []
    if found < wanted:
        notes.append(
            f"{wanted - found:,} of {wanted:,} results are missing (–, or fewer seeds than asked)."
        )
    reasons = table[(table["state"] == "missing") & (table["why"] != "")]
    for (task, why), part in reasons.groupby(["task", "why"], sort=False):
        number = len(part.drop_duplicates(CASE))
        notes.append(f"{label(str(task))} ({number} cases) cannot be run here: {why}.")
    if left_out:
        notes.append(f"{left_out:,} results on part of a task (task.limit) are left out.")
    return notes


def limit_notes(found: pd.DataFrame) -> list[str]:
    """Marks results that were measured on part of their task."""
    limited = found.dropna(subset=["task.limit"])
    if limited.empty:
        return []
    listed: Sequence[str] = [
        f"{label(str(task))} on {'/'.join(sorted({_plain(v) for v in part['task.limit']}))}"
        for task, part in limited.groupby("task", sort=True)
    ]
    unit = "windows or documents at most, not the whole task"
    return [f"LIMITED: {', '.join(listed)} {unit}."]
