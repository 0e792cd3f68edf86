"""Grids, as ``conf/experiment/*.yaml`` declares them under ``hydra.sweeper``.

A *case* is a model, a pruner, a sparsity and a task, on which competitors are compared. A *run*
prunes once and answers all cases of its pruner. A *competitor* is a pair of top-up and refinement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

from neuroal.errors import UserError, shortened

REPEATS = "seed"
"""The axis that repeats a case; tables print the mean over it."""
PAIR = ("topup", "refine")
"""Groups that every competitor chooses from."""
KeyValue = tuple[str, str]
"""A key and its value, as on the command line."""


@dataclass(frozen=True)
class Part:
    """The tasks that are evaluated for a set of pruners.

    Attributes:
        pruners: options of the group ``pruner``.
        tasks: names of tasks.
        beside: whether the tasks are evaluated in addition, without being counted as cases.
    """

    pruners: tuple[str, ...]
    tasks: tuple[str, ...]
    beside: bool = False


@dataclass(frozen=True)
class GridRun:
    """One run of a grid: the keys and values that distinguish it, and the tasks it evaluates."""

    choices: tuple[KeyValue, ...]
    tasks: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """Command-line overrides of ``neuroal`` for this run."""
        return [*map("=".join, self.choices), f"task.names=[{','.join(self.tasks)}]"]

    def __str__(self) -> str:
        return " ".join(map("=".join, self.choices))


@dataclass(frozen=True)
class Declaration:
    """A grid.

    Attributes:
        axes: key → values; every combination is run.
        parts: the pruners and their tasks.
        competitors: sets of choices, each with a ``topup`` and optionally a ``refine``.
        missing: task → why its data is not available.
    """

    axes: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    competitors: tuple[tuple[KeyValue, ...], ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_node(cls, node: Mapping[str, Any]) -> Declaration:
        """Read the keys ``axes``, ``parts``, ``competitors`` and ``missing``."""
        try:
            return cls(
                {str(key): _texts(values) for key, values in node["axes"].items()},
                tuple(
                    Part(_texts(part["pruner"]), _texts(part["tasks"]), part.get("beside", False))
                    for part in node["parts"]
                ),
                tuple(_competitor(choices) for choices in node["competitors"]),
                dict(node.get("missing") or {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"hydra.sweeper: not a grid ({shortened(repr(error))}); give axes, parts and "
                "competitors, as in conf/experiment/zoo.yaml"
            ) from error

    def narrowed(self, overrides: Mapping[str, Sequence[str]]) -> Declaration:
        """Return this grid, restricted by the command line.

        The values of an axis replace the declared ones; another key becomes a new axis. Top-ups,
        refinements and pruners select from the declared ones; values that are declared nowhere are
        added. Top-ups alone select the competitors without refinement, if there are any. Tasks (key
        ``task.names``) are evaluated for all pruners.
        """
        values = {key: tuple(texts) for key, texts in overrides.items()}
        pruners, tasks = values.pop("pruner", None), values.pop("task.names", None)
        competitors = self._competitors({key: values.pop(key) for key in PAIR if key in values})
        for key in values:
            if key.partition(".")[0] in ("pruner", *PAIR):
                raise UserError(
                    f"{key}={','.join(values[key])}: a parameter of a method cannot be an axis; "
                    "give one value, or declare competitors that set it"
                )
        parts = self.parts
        if pruners is not None:
            parts = _with_pruners(parts, pruners)
        if tasks is not None:
            parts = _with_tasks(parts, tasks)
        return replace(self, axes={**self.axes, **values}, parts=parts, competitors=competitors)

    def _competitors(
        self, selected: Mapping[str, tuple[str, ...]]
    ) -> tuple[tuple[KeyValue, ...], ...]:
        """Return the competitors with the `selected` top-ups and refinements."""
        if len(selected) == len(PAIR):
            pairs = product(*(selected[key] for key in PAIR))
            return tuple(competitor for pair in pairs for competitor in self._of_pair(pair))
        competitors = self.competitors
        for key, values in selected.items():
            declared = {dict(choices)[key] for choices in competitors}
            competitors = tuple(c for c in competitors if dict(c)[key] in values)
            if key == "topup":
                competitors = _unrefined(competitors)
            added = ({"topup": "uniform", key: value} for value in values if value not in declared)
            competitors += tuple(map(_competitor, added))
        return competitors

    def _of_pair(self, pair: tuple[str, ...]) -> list[tuple[KeyValue, ...]]:
        """Return the declared competitors with a top-up and refinement, or a new one."""
        choices = dict(zip(PAIR, pair, strict=True))
        declared = [c for c in self.competitors if choices.items() <= dict(c).items()]
        return declared or [_competitor(choices)]

    def tasks_of(self, pruner: str) -> tuple[str, ...]:
        """Return the available tasks of `pruner`."""
        tasks = (
            task
            for part in self.parts
            if pruner in part.pruners
            for task in part.tasks
            if task not in self.missing
        )
        return tuple(dict.fromkeys(tasks))

    @property
    def pruners(self) -> tuple[str, ...]:
        """All pruners, in the order of the declaration."""
        return tuple(dict.fromkeys(p for part in self.parts for p in part.pruners))

    def runs(self) -> Iterator[GridRun]:
        """Yield all runs, grouped by the first axis (the model)."""
        axes_values = [[(key, value) for value in values] for key, values in self.axes.items()]
        for axes in product(*axes_values):
            for pruner in self.pruners:
                if tasks := self.tasks_of(pruner):
                    for competitor in self.competitors:
                        yield GridRun((*axes, ("pruner", pruner), *competitor), tasks)

    def only(self, task: str) -> Declaration:
        """Return this grid with `task` as its only task."""
        parts = (replace(p, tasks=(task,)) for p in self.parts if task in p.tasks)
        return replace(self, parts=tuple(parts))

    def count(self, *, beside: bool = False, missing: bool = False) -> int:
        """Return the number of cases of each competitor.

        With `beside`, count the tasks that are evaluated beside the cases instead; with `missing`,
        count what is not available instead of what is.
        """
        pairs = {
            (pruner, task)
            for part in self.parts
            if part.beside is beside
            for pruner, task in product(part.pruners, part.tasks)
            if (task in self.missing) is missing
        }
        return len(pairs) * prod(len(v) for key, v in self.axes.items() if key != REPEATS)


def _competitor(choices: Mapping[str, Any]) -> tuple[KeyValue, ...]:
    ordered = {"topup": choices["topup"], "refine": "none", **choices}
    return tuple((str(key), str(value)) for key, value in ordered.items())


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(str, [values] if isinstance(values, str | int | float) else values))


def _unrefined(competitors: tuple[tuple[KeyValue, ...], ...]) -> tuple[tuple[KeyValue, ...], ...]:
    """Return the competitors without refinement, and those whose top-up has no other."""
    plain = {dict(choices)["topup"] for choices in competitors if ("refine", "none") in choices}
    return tuple(
        choices
        for choices in competitors
        if ("refine", "none") in choices or dict(choices)["topup"] not in plain
    )


def _with_pruners(parts: tuple[Part, ...], values: tuple[str, ...]) -> tuple[Part, ...]:
    """Restrict the pruners of all `parts` to `values`; those that no part declares are added."""
    declared = {pruner for part in parts for pruner in part.pruners}
    return tuple(
        replace(
            part,
            pruners=tuple(
                v for v in values if v in part.pruners or (v not in declared and not part.beside)
            ),
        )
        for part in parts
    )


def _with_tasks(parts: tuple[Part, ...], values: tuple[str, ...]) -> tuple[Part, ...]:
    """Return parts in which all pruners have the tasks `values`.

    Tasks that are declared beside the cases, and nowhere else, remain beside them.
    """
    pruners = tuple(dict.fromkeys(pruner for part in parts for pruner in part.pruners))
    counted = {task for part in parts if not part.beside for task in part.tasks}
    beside = {task for part in parts for task in part.tasks} - counted
    return (
        Part(pruners, tuple(task for task in values if task not in beside)),
        Part(pruners, tuple(task for task in values if task in beside), beside=True),
    )
