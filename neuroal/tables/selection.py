"""Which records and results a table is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OF_RESULTS = ("task.limit", "task.seqlen")
"""Keys of single results: a record's own may have been measured in several runs."""
NOWHERE = object()


@dataclass(frozen=True)
class Selection:
    """What was asked for.

    Attributes:
        wanted: for every override its alternatives, each dotted key → value. A record matches
            if, for every override, all values of an alternative are its own.
        tasks: names, or None for all.
        identities: of the records that are looked at, or None for all.
        limited: whether results on part of a task are wanted without their limit being named.
        text: what the records that it leaves out are not, for messages: ``has seed=7``.
    """

    wanted: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    tasks: frozenset[str] | None = None
    identities: frozenset[str] | None = None
    limited: bool = False
    text: str = ""

    def knows(self, identity: str) -> bool:
        """Whether a record of this identity is to be read at all."""
        return self.identities is None or identity in self.identities

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a record's configuration is among those asked for."""
        return all(
            any(_agrees(alternative, config) for alternative in alternatives)
            for alternatives in self.wanted
        )

    def allows(self, result: Mapping[str, Any]) -> bool:
        """Whether a result (a row of `Found.results`) is among those asked for."""
        return self._asked(result) and (self._may_be_limited() or result["task.limit"] is None)

    def limited_only(self, result: Mapping[str, Any]) -> bool:
        """Whether a result is left out for no other reason than its limit."""
        return self._asked(result) and not self.allows(result)

    def _asked(self, result: Mapping[str, Any]) -> bool:
        return (self.tasks is None or result["task"] in self.tasks) and all(
            any(
                all(_has(result, key, alternative) for key in OF_RESULTS)
                for alternative in alternatives
            )
            for alternatives in self.wanted
        )

    def _may_be_limited(self) -> bool:
        return self.limited or any("task.limit" in a for group in self.wanted for a in group)


def _has(result: Mapping[str, Any], key: str, alternative: Mapping[str, Any]) -> bool:
    """Whether a result was measured as asked; zero-shot tasks have no windows to be of a length."""
    if key not in alternative or (key == "task.seqlen" and result["kind"] == "zero_shot"):
        return True
    return bool(result[key] == alternative[key])


def _agrees(alternative: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(
        _found(config, key) == value
        for key, value in alternative.items()
        if key not in OF_RESULTS and not key.startswith("task.")
    )


def _found(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return NOWHERE
        config = config[part]
    return config
