"""Evaluation tasks: their data is prepared once, their figures are computed for any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuroal.config.schema import TaskConfig, default_seqlen
from neuroal.data.resolve import DataSplit, find_rows
from neuroal.data.sets import data_set
from neuroal.data.text import Windows, evaluation_windows
from neuroal.data.text import require as require_text
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.evaluation.sanity import warn_if_infinite
from neuroal.evaluation.task_table import KINDS, ZERO_SHOT, is_harness
from neuroal.models.load import LoadedModel
from neuroal.tracking.progress import Portion, Progress

if TYPE_CHECKING:
    from neuroal.evaluation.harness import Harness, HarnessData


@dataclass(frozen=True, eq=False)
class PerplexityTask:
    """Perplexity on the windows of one text: ``value``, ``stderr``, ``windows``."""

    name: str
    windows: Windows
    limit: int | None
    bos: str = "stream"

    @property
    def headline(self) -> str:
        """Name of the figure that is shown in progress and tables."""
        return KINDS["perplexity"].figure

    @property
    def terms(self) -> dict[str, Any]:
        """Evaluation settings, as in the record."""
        seqlen = int(self.windows.tokens.shape[1])
        return {"kind": "perplexity", "limit": self.limit, "seqlen": seqlen, "bos": self.bos}

    @property
    def description(self) -> dict[str, str]:
        """``source``, ``origin`` and ``fingerprint`` of the data."""
        return self.windows.description

    @property
    def units(self) -> int:
        """Number of windows, which progress counts."""
        return len(self.windows.tokens)

    def evaluate(
        self, model: Any, tokenizer: Any, batch: int | None, portion: Portion | None = None
    ) -> dict[str, Any]:
        """Return the figures of `model`; if `batch` is None, choose it by free memory.

        `portion` receives the share of the task that is complete.
        """
        return dataclasses.asdict(perplexity(model, self.windows.tokens, batch, portion))


@dataclass(frozen=True, eq=False)
class ZeroShotTask:
    """Accuracy on a task of the paper (see `zero_shot`), with ``samples`` if they are logged."""

    name: str
    data: DataSplit
    limit: int | None
    log_samples: bool = False

    @property
    def headline(self) -> str:
        return KINDS["zero_shot"].figure

    @property
    def terms(self) -> dict[str, Any]:
        return {"kind": "zero_shot", "limit": self.limit, "seqlen": None, "bos": None}

    @property
    def description(self) -> dict[str, str]:
        source = data_set(self.name)
        return {
            "source": f"{source.folder} {source.evaluation}",
            "origin": self.data.origin,
            "fingerprint": self.data.fingerprint,
        }

    @property
    def units(self) -> int:
        """Number of documents, which progress counts."""
        documents = len(self.data.rows)
        return documents if self.limit is None else min(self.limit, documents)

    def evaluate(
        self, model: Any, tokenizer: Any, batch: int | None, portion: Portion | None = None
    ) -> dict[str, Any]:
        from neuroal.evaluation import zero_shot as lm_eval  # takes seconds to import

        measure = lm_eval.zero_shot_with_samples if self.log_samples else lm_eval.zero_shot
        return measure(model, tokenizer, self.name, self.data, self.limit, batch, portion)


@dataclass(frozen=True, eq=False)
class HarnessTask:
    """Any task or group of lm-eval (see `evaluate_harness`)."""

    harness: Harness
    data: HarnessData

    @property
    def name(self) -> str:
        return self.harness.name

    @property
    def log_samples(self) -> bool:
        return self.harness.config.log_samples

    @property
    def headline(self) -> str:
        return KINDS[self._kind].figure

    @property
    def _kind(self) -> str:
        return "lm_eval" if self.data.higher_is_better else "lm_eval_loss"

    @property
    def terms(self) -> dict[str, Any]:
        config = self.harness.config
        lengths = {"limit": config.limit, "seqlen": None, "bos": None}
        return {"kind": self._kind, **lengths, "prompt": config.prompt}

    @property
    def description(self) -> dict[str, str]:
        origin = self.harness.root or "Hugging Face cache or hub"
        return {
            "source": self.data.source,
            "origin": origin,
            "fingerprint": self.data.fingerprint,
        }

    @property
    def units(self) -> int:
        """Number of documents, which progress counts."""
        return self.data.documents

    def evaluate(
        self, model: Any, tokenizer: Any, batch: int | None, portion: Portion | None = None
    ) -> dict[str, Any]:
        from neuroal.evaluation.harness import evaluate_harness  # lm-eval takes seconds to import

        return evaluate_harness(model, tokenizer, self.harness, self.data.metric, batch, portion)


Task = PerplexityTask | ZeroShotTask | HarnessTask
UNITS = {"perplexity": "window"}
"""What progress counts in each kind of task; documents in the kinds that are not listed."""


def require(config: TaskConfig, root: str | None) -> None:
    """Raise `UserError` if the data of a task cannot be found, without loading a model."""
    for name in config.names:
        if is_harness(name, config.prompt != "stock"):
            _harness_task(name, config, root)
        elif name in ZERO_SHOT:
            find_rows(name, data_set(name).evaluation, root)
        else:
            require_text(name, "evaluation", root)


def prepare(config: TaskConfig, tokenizer: Any, context: int, root: str | None) -> list[Task]:
    """Return the tasks of `config` with their data.

    `context` is the maximum number of tokens the model takes, and `root` a folder of local data.
    """
    if config.chat_template and getattr(tokenizer, "chat_template", None) is None:
        raise UserError("task.chat_template=true: the tokenizer of the model has no chat template")
    return [_prepared(name, config, tokenizer, context, root) for name in config.names]


def _harness_task(name: str, config: TaskConfig, root: str | None) -> HarnessTask:
    from neuroal.evaluation.harness import Harness, HarnessData  # lm-eval takes seconds to import

    harness = Harness(name, config, root)
    return HarnessTask(harness, HarnessData.of(harness))


def _prepared(
    name: str, config: TaskConfig, tokenizer: Any, context: int, root: str | None
) -> Task:
    if is_harness(name, config.prompt != "stock"):
        return _harness_task(name, config, root)
    if name in ZERO_SHOT:
        split = data_set(name).evaluation
        return ZeroShotTask(name, find_rows(name, split, root), config.limit, config.log_samples)
    seqlen = default_seqlen(config.seqlen, context, "task.seqlen")
    windows = evaluation_windows(name, tokenizer, seqlen, config.limit, root, config.bos)
    return PerplexityTask(name, windows, config.limit, config.bos)


def counted(tasks: Sequence[Task]) -> tuple[int, str]:
    """Return the number of units of all tasks, and their name."""
    units = {UNITS.get(task.terms["kind"], "document") for task in tasks}
    unit = units.pop() if len(units) == 1 else "example"
    return sum(task.units for task in tasks), unit


def evaluate_tasks(
    loaded: LoadedModel,
    tasks: Sequence[Task],
    batch: int | None,
    progress: Progress,
    stage: str,
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Yield each task with the figures of the model, as soon as they are computed."""
    with progress.stage(stage, *counted(tasks)) as step:
        for task in tasks:
            portion = Portion(step, task.units)
            figures = task.evaluate(loaded.model, loaded.tokenizer, batch, portion)
            warn_if_infinite(task.name, figures)
            portion.finish(**{task.name: figures[task.headline]})
            yield task, figures
