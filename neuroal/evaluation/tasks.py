"""Tasks: what a model is measured on, made ready before it is pruned, measured before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

from neuroal.config import TaskConfig, default_seqlen
from neuroal.data.resolve import Found, find_rows
from neuroal.data.sets import data_set
from neuroal.data.text import Windows, evaluation_windows
from neuroal.data.text import require as require_text
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.validation import ZERO_SHOT_SETS


class Task(Protocol):
    """A task whose data is at hand.

    Attributes:
        headline: the figure to show.
    """

    headline: ClassVar[str]

    @property
    def name(self) -> str:
        """As in ``task.names``."""

    @property
    def terms(self) -> dict[str, Any]:
        """How it is measured, as the record says it: ``kind``, ``limit``, ``seqlen``."""

    @property
    def description(self) -> dict[str, str]:
        """``source``, ``origin`` and ``fingerprint`` of its data."""

    def measure(self, model: Any, tokenizer: Any, batch: int | None) -> dict[str, Any]:
        """The figures of `model`; `batch` None: by memory."""


@dataclass(frozen=True, eq=False)
class PerplexityTask:
    """Perplexity on the windows of one text: ``value``, ``stderr``, ``windows``."""

    headline: ClassVar[str] = "value"
    name: str
    windows: Windows
    limit: int | None

    @property
    def terms(self) -> dict[str, Any]:
        seqlen = int(self.windows.tokens.shape[1])
        return {"kind": "perplexity", "limit": self.limit, "seqlen": seqlen}

    @property
    def description(self) -> dict[str, str]:
        return self.windows.description

    def measure(self, model: Any, tokenizer: Any, batch: int | None) -> dict[str, Any]:
        return dataclasses.asdict(perplexity(model, self.windows.tokens, batch))


@dataclass(frozen=True, eq=False)
class ZeroShotTask:
    """Accuracy on a task of lm-eval; see `zero_shot`."""

    headline: ClassVar[str] = "acc"
    name: str
    found: Found
    split: str
    limit: int | None

    @property
    def terms(self) -> dict[str, Any]:
        return {"kind": "zero_shot", "limit": self.limit, "seqlen": None}

    @property
    def description(self) -> dict[str, str]:
        return {
            "source": f"{data_set(self.name).folder} {self.split}",
            "origin": self.found.origin,
            "fingerprint": self.found.fingerprint,
        }

    def measure(self, model: Any, tokenizer: Any, batch: int | None) -> dict[str, Any]:
        from neuroal.evaluation.zero_shot import zero_shot  # late: lm-eval takes long to import

        return zero_shot(model, tokenizer, self.name, self.found, self.split, self.limit, batch)


def require(names: Iterable[str], root: str | None) -> None:
    """Make sure that all data is at hand, and lm-eval where it is needed, before a model is loaded.

    Raises:
        UserError: something is missing.
    """
    for name in names:
        if name not in ZERO_SHOT_SETS:
            require_text(name, "evaluation", root)
            continue
        if find_spec("lm_eval") is None:
            raise UserError(
                f"task.names: {name} needs lm-eval, which is not installed; "
                "pip install lm-eval==0.4.13"
            )
        find_rows(name, _split(name), root)


def prepare(config: TaskConfig, tokenizer: Any, context: int, root: str | None) -> list[Task]:
    """The tasks of `config`, their data found and read.

    Args:
        config: which tasks, and how much of them.
        tokenizer: of the model.
        context: tokens the model takes at most.
        root: folder of local data sets.

    Raises:
        UserError: a text shorter than a window, or missing data.
    """
    return [_prepared(name, config, tokenizer, context, root) for name in config.names]


def _split(name: str) -> str:
    """The one split that a zero-shot task is scored on."""
    (split,) = data_set(name).files
    return split


def _prepared(
    name: str, config: TaskConfig, tokenizer: Any, context: int, root: str | None
) -> Task:
    if name in ZERO_SHOT_SETS:
        split = _split(name)
        return ZeroShotTask(name, find_rows(name, split, root), split, config.limit)
    seqlen = default_seqlen(config.seqlen, context, "task.seqlen")
    windows = evaluation_windows(name, tokenizer, seqlen, config.limit, root)
    return PerplexityTask(name, windows, config.limit)
