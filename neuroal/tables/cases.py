"""The cells of all tables: expected cases joined with results."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from neuroal.errors import UserError
from neuroal.evaluation.task_table import TASKS
from neuroal.tables.labels import in_order, label
from neuroal.tables.reading import SETTINGS


class Case(NamedTuple):
    """A model, pruner, sparsity and task, on which competitors are compared."""

    model: str
    pruner: str
    sparsity: str
    task: str


SHARED = "All:"
"""Start of the note that lists the settings of all results."""
LIMITED = "LIMITED:"
"""Start of the note that lists the results on part of their task."""
CASE = list(Case._fields)
"""Columns that identify a case."""
CELL = [*CASE, "competitor"]
"""Columns that identify a cell."""


@dataclass(frozen=True)
class Expected:
    """Expected results: one for each case, competitor and seed.

    Attributes:
        cases: all cases, in the order of the tables.
        competitors: names as in `config.naming.competitor`, in the order of the tables.
        unavailable: case → why it cannot be run; such a case counts as missing.
        beside: tasks that have tables, but are excluded from wins, means over cases and counts.
    """

    cases: tuple[Case, ...]
    competitors: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    unavailable: Mapping[Case, str] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()

    @property
    def counted(self) -> tuple[Case, ...]:
        """The cases whose tasks are not in `beside`."""
        return tuple(case for case in self.cases if case.task not in self.beside)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in JSON types."""
        reasons = [[*case, reason] for case, reason in self.unavailable.items()]
        return {**asdict(self), "unavailable": reasons, "beside": sorted(self.beside)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Expected:
        """Return what `to_dict` converted."""
        return cls(
            cases=tuple(Case(*case) for case in content["cases"]),
            competitors=tuple(content["competitors"]),
            seeds=tuple(content["seeds"]),
            unavailable={Case(*case): reason for *case, reason in content["unavailable"]},
            beside=frozenset(content["beside"]),
        )

    def axis(self, name: str) -> list[str]:
        """Return the distinct values of field `name` of the cases, in order."""
        return list(dict.fromkeys(getattr(case, name) for case in self.cases))


def expected_from(results: pd.DataFrame) -> Expected:
    """Return all cases, competitors and seeds that have results."""
    ratios = results.drop_duplicates("sparsity").sort_values(["ratio", "sparsity"])["sparsity"]
    tasks = results.drop_duplicates(["model", "pruner", "sparsity", "task"])
    answered = set(tasks[CASE].itertuples(index=False, name=None))
    axes = (in_order(results["model"]), in_order(results["pruner"]), list(ratios))
    return Expected(
        cases=tuple(
            Case(*case) for case in product(*axes, in_order(results["task"])) if case in answered
        ),
        competitors=tuple(in_order(results["competitor"])),
        seeds=tuple(sorted({int(seed) for seed in results["seed"]})),
    )


def relevant(results: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """Return the results that are expected, at most one for each case, competitor and seed.

    Raises:
        UserError: two records have the same result; names the key in which they differ.
    """
    keys = pd.MultiIndex.from_tuples(expected.cases, names=CASE)
    expected_results = results[
        pd.MultiIndex.from_frame(results[CASE]).isin(keys)
        & results["competitor"].isin(expected.competitors)
        & results["seed"].isin(expected.seeds)
    ]
    twice = expected_results[expected_results.duplicated([*CELL, "seed"], keep=False)]
    if len(twice):
        first = twice.sort_values([*CELL, "seed", "identity"]).iloc[:2]
        raise UserError(_two_answers(first))
    return expected_results.sort_values([*CELL, "seed"], ignore_index=True)


def _two_answers(pair: pd.DataFrame) -> str:
    one, two = (row for _, row in pair.iterrows())
    cell = " ".join(str(one[name]) for name in (*CELL, "seed"))
    records = f"records {one['identity']} and {two['identity']}"
    for key in SETTINGS:
        if repr(one[key]) != repr(two[key]):
            values = f"{_plain(one[key])} and {_plain(two[key])}"
            return (
                f"{cell}: {records} differ in {key} ({values}); "
                f"select one, as in {key}={_plain(one[key])}"
            )
    return f"{cell}: {records} both have this result; move one away"


def _plain(value: object) -> str:
    if value is None or value != value:
        return "null"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def answered_by_all(results: pd.DataFrame, competitors: Collection[str]) -> pd.DataFrame:
    """Return the results of the cases that all `competitors` answered."""
    answers = results.groupby(CASE)["competitor"].transform("nunique")
    return results[answers == len(competitors)]


def cells(results: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """Return one row for each expected case and competitor, with or without results.

    Columns are `CELL`, ``value`` (mean over seeds), ``deviation`` (sample standard deviation over
    seeds; NaN for one seed), ``stderr`` (of the result; NaN for several seeds), ``dense``,
    ``kind``, ``seeds`` (number with results), ``wanted`` (number of expected seeds), ``records``
    (identities), ``state`` (``done``, ``partial`` or ``missing``) and ``why`` (reason that the case
    cannot be run).
    """
    grouped = results.groupby(CELL, sort=False)
    frame = grouped.agg(
        value=("value", "mean"),
        deviation=("value", "std"),
        stderr=("stderr", "first"),
        seeds=("seed", "count"),
        records=("identity", " ".join),
    )
    dense = results.drop_duplicates(["model", "task"]).set_index(["model", "task"])["dense"]
    index = pd.MultiIndex.from_tuples(
        [(*case, name) for case in expected.cases for name in expected.competitors], names=CELL
    )
    frame = frame.reindex(index).reset_index()
    frame["dense"] = dense.reindex(pd.MultiIndex.from_frame(frame[["model", "task"]])).to_numpy()
    frame["kind"] = frame["task"].map(kinds_of(results, frame["task"]))
    frame["seeds"] = frame["seeds"].fillna(0).astype(int)
    frame["wanted"] = len(expected.seeds)
    frame["records"] = frame["records"].fillna("")
    frame.loc[frame["seeds"] > 1, "stderr"] = float("nan")
    frame["state"] = "partial"
    frame.loc[frame["seeds"] == 0, "state"] = "missing"
    frame.loc[frame["seeds"] >= len(expected.seeds), "state"] = "done"
    reasons = expected.unavailable
    frame["why"] = [
        reasons.get(Case(*case), "") for case in frame[CASE].itertuples(index=False, name=None)
    ]
    return frame


def kinds_of(results: pd.DataFrame, tasks: Iterable[str] = ()) -> pd.Series:
    """Return task → kind for the tasks of `results`, and for `tasks` with or without results."""
    kinds = dict.fromkeys(tasks, "zero_shot")
    kinds |= {task: TASKS[task].kind for task in kinds if task in TASKS}
    return pd.Series(kinds | dict(zip(results["task"], results["kind"], strict=True)), dtype=str)


def settings_notes(results: pd.DataFrame) -> list[str]:
    """Return notes on the settings that all results share, and on those in which they differ."""
    notes, shared = [], []
    for key in SETTINGS:
        if key.startswith("model.") or key == "task.limit":
            continue
        with_key = results[results[key].notna()]
        values = {_plain(value) for value in with_key[key]} - {""}
        if len(values) == 1:
            shared.append(f"{key}={values.pop()}")
        elif len(values) > 1:
            notes.append(_differing(with_key, key))
    return [*([f"{SHARED} {', '.join(shared)}."] if shared else []), *notes]


def _differing(results: pd.DataFrame, key: str) -> str:
    """Return the note on a key with several values, by task or by competitor."""
    by = "task" if key.startswith("task.") else "competitor"
    groups: dict[str, list[str]] = {}
    for name, part in results.groupby(by, sort=True):
        values = "/".join(sorted({_plain(value) for value in part[key]}))
        groups.setdefault(values, []).append(label(str(name)))
    listed = "; ".join(f"{values} for {', '.join(names)}" for values, names in groups.items())
    return f"{key} differs: {listed}."


def missing_notes(table: pd.DataFrame, left_out: int = 0) -> list[str]:
    """Return notes on missing results in `table`, from `cells`, and on cases that cannot be run.

    `left_out` is the number of results on part of a task that are not selected.
    """
    expected, present = int(table["wanted"].sum()), int(table["seeds"].sum())
    notes = []
    if present < expected:
        notes.append(
            f"{expected - present:,} of {expected:,} results are missing (– or fewer seeds)."
        )
    reasons = table[(table["state"] == "missing") & (table["why"] != "")]
    for (task, reason), part in reasons.groupby(["task", "why"], sort=False):
        number = len(part.drop_duplicates(CASE))
        notes.append(f"{label(str(task))} ({number} cases) cannot be run here: {reason}.")
    if left_out:
        notes.append(f"{left_out:,} results on part of a task (task.limit) are left out.")
    return notes


def limit_notes(results: pd.DataFrame) -> list[str]:
    """Return a note on the results that were evaluated on part of their task."""
    limited = results.dropna(subset=["task.limit"])
    if limited.empty:
        return []
    listed = [
        f"{label(str(task))} on {'/'.join(sorted({_plain(v) for v in part['task.limit']}))}"
        for task, part in limited.groupby("task", sort=True)
    ]
    unit = "windows or documents at most, not the whole task"
    return [f"{LIMITED} {', '.join(listed)} {unit}."]
