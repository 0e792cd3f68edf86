"""Select the records and results of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from neuroal.config.schema import value_at

OF_RESULTS = ("task.limit", "task.seqlen", "task.bos")
"""Keys that belong to a result, because several runs can add results to one record."""
OF_TEXTS = ("task.seqlen", "task.bos")
"""Keys of `OF_RESULTS` that do not apply to zero-shot tasks."""
BEFORE = {"calibration.bos": "stream", "task.bos": "stream"}
"""Key that version 0.1 did not have → the value that its records imply."""
ABSENT = object()
"""Value of a key that a configuration does not have."""


@dataclass(frozen=True)
class Selection:
    """Conditions on records and results.

    Attributes:
        overrides: for every override its alternatives, each dotted key → value. A record matches
            an override if it has all values of one alternative.
        tasks: names of the tasks; None: all.
        identities: identities of the records to read; None: all.
        limited: whether to include results on part of a task although no limit is requested.
        text: the condition in words, for messages: ``has seed=7``.
        names: identity → competitor, if a declared grid does not name it by its methods.
        terms: identity → values of `OF_RESULTS` that the results of the record must have.
    """

    overrides: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    tasks: frozenset[str] | None = None
    identities: frozenset[str] | None = None
    limited: bool = False
    text: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Return whether the configuration of a record is selected."""
        return all(any(_agrees(choice, config) for choice in choices) for choices in self.overrides)

    def allows(self, result: Mapping[str, Any]) -> bool:
        """Return whether a result (a row of `RecordFrames.results`) is selected."""
        may_be_limited = self.limited or any("task.limit" in a for a in self._conditions(result))
        return self._requested(result) and (may_be_limited or result["task.limit"] is None)

    def limited_only(self, result: Mapping[str, Any]) -> bool:
        """Return whether a result is excluded only because of its limit."""
        return self._requested(result) and not self.allows(result)

    def _requested(self, result: Mapping[str, Any]) -> bool:
        return (self.tasks is None or result["task"] in self.tasks) and all(
            any(all(_agrees_on(result, key, choice) for key in OF_RESULTS) for choice in choices)
            for choices in (*self.overrides, (self.terms.get(result["identity"], {}),))
        )

    def _conditions(self, result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield all alternatives of all overrides, and the terms of the result's record."""
        for choices in self.overrides:
            yield from choices
        yield self.terms.get(result["identity"], {})


def _agrees_on(result: Mapping[str, Any], key: str, alternative: Mapping[str, Any]) -> bool:
    """Return whether a result has the value of `key`, if the key applies to its task."""
    if key not in alternative or (key in OF_TEXTS and result["kind"] != "perplexity"):
        return True
    return bool(result[key] == alternative[key])


def _agrees(alternative: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(
        _value(config, key) == value
        for key, value in alternative.items()
        if not key.startswith("task.")
    )


def _value(config: Mapping[str, Any], dotted: str) -> Any:
    try:
        return setting(config, dotted)
    except (KeyError, TypeError):
        return ABSENT


def setting(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key of a record's configuration, or that of `BEFORE`."""
    try:
        return value_at(config, dotted)
    except KeyError:
        if dotted in BEFORE:
            return BEFORE[dotted]
        raise
