"""A grid, as ``conf/experiment/*.yaml`` declares it under ``hydra.sweeper``: who competes in what.

A *case* is a model, a pruner, a sparsity and a task: in it the competitors are compared. A *run*
prunes once and answers all cases of its pruner. A *competitor* is a pair of top-up and refinement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

from neuroal.errors import UserError

REPEATS = "seed"
"""The axis that repeats a case; tables print the mean over it."""
PAIR = ("topup", "refine")
Choice = tuple[str, str]
"""A key and its value, as on the command line."""


@dataclass(frozen=True)
class Part:
    """Which tasks are answered under which pruners.

    Attributes:
        pruners: options of the group.
        tasks: names.
        beside: answered as well, but not counted among the cases.
    """

    pruners: tuple[str, ...]
    tasks: tuple[str, ...]
    beside: bool = False


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        choices: what is its own, in the order of the declaration.
        tasks: what is measured of it.
    """

    choices: tuple[Choice, ...]
    tasks: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """As ``neuroal`` takes them."""
        names = f"task.names=[{','.join(self.tasks)}]"
        return [*(f"{key}={value}" for key, value in self.choices), names]

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.choices)


@dataclass(frozen=True)
class Declaration:
    """A whole grid.

    Attributes:
        axes: key → values; every combination is run.
        parts: the pruners and their tasks.
        competitors: each a set of choices, with a ``topup`` and perhaps a ``refine``.
        missing: task → why it cannot be run here.
    """

    axes: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    competitors: tuple[tuple[Choice, ...], ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_node(cls, node: Mapping[str, Any]) -> Declaration:
        """Read the keys ``axes``, ``parts``, ``competitors`` and ``missing``.

        Raises:
            UserError: what is there is no grid.
        """
        try:
            return cls(
                {str(key): _texts(values) for key, values in node["axes"].items()},
                tuple(
                    Part(_texts(part["pruner"]), _texts(part["tasks"]), part.get("beside", False))
                    for part in node["parts"]
                ),
                tuple(_competitor(found) for found in node["competitors"]),
                dict(node.get("missing") or {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"hydra.sweeper: no grid ({error!r}); it needs axes, parts and competitors, as in "
                "conf/experiment/zoo.yaml"
            ) from error

    def narrowed(self, given: Mapping[str, Sequence[str]]) -> Declaration:
        """This grid with what the command line gives in place of what it declares.

        A key of an axis, or a new one of several values, takes the axis's place. Given top-ups,
        refinements, pruners and tasks (key ``task.names``) pick out the declared ones; what is
        declared nowhere is added.
        """
        values = {key: tuple(found) for key, found in given.items()}
        pruners, tasks = values.pop("pruner", None), values.pop("task.names", None)
        competitors = self._competitors({key: values.pop(key) for key in PAIR if key in values})
        for key in values:
            if key.partition(".")[0] in ("pruner", *PAIR):
                raise UserError(
                    f"{key}={','.join(values[key])}: parameters of methods are no axis of a grid; "
                    "give one value, or declare competitors that have them"
                )
        parts = self.parts
        if pruners is not None:
            names = _picked([part.pruners for part in parts], parts, pruners)
            parts = tuple(replace(p, pruners=n) for p, n in zip(parts, names, strict=True))
        if tasks is not None:
            names = _picked([part.tasks for part in parts], parts, tasks)
            parts = tuple(replace(p, tasks=n) for p, n in zip(parts, names, strict=True))
        return replace(self, axes={**self.axes, **values}, parts=parts, competitors=competitors)

    def _competitors(self, given: Mapping[str, tuple[str, ...]]) -> tuple[tuple[Choice, ...], ...]:
        if len(given) == len(PAIR):
            pairs = product(*(given[key] for key in PAIR))
            return tuple(_competitor(dict(zip(PAIR, pair, strict=True))) for pair in pairs)
        picked = self.competitors
        for key, chosen in given.items():
            declared = {value for found in picked for name, value in found if name == key}
            picked = tuple(found for found in picked if dict(found)[key] in chosen)
            added = ({"topup": "uniform", key: value} for value in chosen if value not in declared)
            picked += tuple(map(_competitor, added))
        return picked

    def tasks_of(self, pruner: str, *, beside: bool = True) -> tuple[str, ...]:
        """The tasks at hand under `pruner`; without ``beside`` those that are counted."""
        found = (
            task
            for part in self.parts
            if pruner in part.pruners and (beside or not part.beside)
            for task in part.tasks
            if task not in self.missing
        )
        return tuple(dict.fromkeys(found))

    @property
    def pruners(self) -> tuple[str, ...]:
        """All pruners, in the order in which they are declared."""
        return tuple(dict.fromkeys(p for part in self.parts for p in part.pruners))

    def runs(self) -> Iterator[GridRun]:
        """All runs; those of one model follow each other."""
        spread = [[(key, value) for value in values] for key, values in self.axes.items()]
        for axes in product(*spread):
            for pruner in self.pruners:
                if tasks := self.tasks_of(pruner):
                    for competitor in self.competitors:
                        yield GridRun((*axes, ("pruner", pruner), *competitor), tasks)

    def only(self, task: str) -> Declaration:
        """This grid with one task alone."""
        parts = (replace(p, tasks=(task,)) for p in self.parts if task in p.tasks)
        return replace(self, parts=tuple(parts))

    def count(self, *, beside: bool = False, missing: bool = False) -> int:
        """Cases of each competitor: that are at hand, or are missing, or stand beside them."""
        pairs = {
            (pruner, task)
            for part in self.parts
            if part.beside is beside
            for pruner, task in product(part.pruners, part.tasks)
            if (task in self.missing) is missing
        }
        return len(pairs) * prod(len(v) for key, v in self.axes.items() if key != REPEATS)


def _competitor(found: Mapping[str, Any]) -> tuple[Choice, ...]:
    ordered = {"topup": found["topup"], "refine": "none", **found}
    return tuple((str(key), str(value)) for key, value in ordered.items())


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(str, [values] if isinstance(values, str | int | float) else values))


def _picked(
    declared: Sequence[tuple[str, ...]], parts: Sequence[Part], chosen: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """For each part those of `chosen` that it declares, and those that none declares."""
    known = {name for names in declared for name in names}
    for names, part in zip(declared, parts, strict=True):
        yield tuple(n for n in chosen if n in names or (n not in known and not part.beside))
