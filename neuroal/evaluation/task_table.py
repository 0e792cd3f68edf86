"""The table of all tasks and of the figures that each kind of task reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskKind:
    """The figure that tasks of one kind report.

    `label` is its printed name; `figure` and `error` name it and its standard error in a record.
    """

    label: str
    figure: str
    error: str
    lower_is_better: bool


@dataclass(frozen=True)
class TaskInfo:
    """One task.

    Attributes:
        harness: path of the definition in lm-eval 0.4.13 of a zero-shot task.
        chance: accuracy without reading the document: that of a guess among the answers, or of the
            most frequent label if the same labels answer every document (RTE, BoolQ).
    """

    label: str
    kind: str = "perplexity"
    harness: str | None = None
    chance: float | None = None


KINDS = {
    "perplexity": TaskKind("perplexity", "value", "stderr", lower_is_better=True),
    "zero_shot": TaskKind("zero-shot accuracy", "acc", "acc_stderr", lower_is_better=False),
    "lm_eval": TaskKind("lm-eval", "value", "stderr", lower_is_better=False),
    "lm_eval_loss": TaskKind("lm-eval, lower is better", "value", "stderr", lower_is_better=True),
}
TASKS = {
    "wikitext2": TaskInfo("WikiText-2"),
    "ptb": TaskInfo("PTB"),
    "c4": TaskInfo("C4"),
    "c4_sample": TaskInfo("C4 sample"),  # a substitute for c4 that is never shown under its name
    "builtin": TaskInfo("built-in text"),
    "rte": TaskInfo("RTE", "zero_shot", "glue/rte/default.yaml", 0.527),
    "winogrande": TaskInfo("WinoGrande", "zero_shot", "winogrande/default.yaml", 0.5),
    "boolq": TaskInfo("BoolQ", "zero_shot", "super_glue/boolq/default.yaml", 0.622),
    "hellaswag": TaskInfo("HellaSwag", "zero_shot", "hellaswag/hellaswag.yaml", 0.25),
    "arc_easy": TaskInfo("ARC-e", "zero_shot", "arc/arc_easy.yaml", 0.25),
    "arc_challenge": TaskInfo("ARC-c", "zero_shot", "arc/arc_challenge.yaml", 0.25),
    "openbookqa": TaskInfo("OBQA", "zero_shot", "openbookqa/openbookqa.yaml", 0.25),
}
"""Name → task, in the order of the tables. `neuroal.data.sets` describes the data. Any other name
is a task of lm-eval, of one of the two last kinds."""
ZERO_SHOT = tuple(name for name, task in TASKS.items() if task.kind == "zero_shot")


def is_harness(name: str, prompted: bool) -> bool:
    """Return whether lm-eval's own definition evaluates `name`.

    It does for every task that is not in `TASKS` and, if examples or a chat template are asked for
    (`prompted`), also for the zero-shot tasks.
    """
    return name not in TASKS or (prompted and name in ZERO_SHOT)
