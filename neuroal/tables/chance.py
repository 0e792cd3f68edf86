"""Mark the tasks on which the dense model is no better than guessing."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from neuroal.evaluation.task_table import TASKS
from neuroal.tables.table import MISSING

MARK = "†"
ERRORS = 2.0
"""Standard errors above chance from which an accuracy counts as better than guessing."""
NOTE = (
    f"{MARK} The dense model is no better than guessing, within two standard errors; differences "
    "between pruned models on this task are noise."
)
Pairs = frozenset[tuple[str, str]]
"""Models and tasks."""


def at_chance(results: pd.DataFrame) -> Pairs:
    """Return the models and tasks of which the dense accuracy is no better than guessing."""
    pairs = []
    for row in results.drop_duplicates(["model", "task"]).itertuples():
        chance = TASKS[row.task].chance if row.task in TASKS else None
        error = 0.0 if row.dense_stderr != row.dense_stderr else row.dense_stderr
        if chance is not None and row.dense <= chance + ERRORS * error:
            pairs.append((str(row.model), str(row.task)))
    return frozenset(pairs)


def marked(text: str, models: Collection[str], task: str, pairs: Pairs) -> str:
    """Return `text` with a mark if all `models` are at chance on `task`."""
    all_are = bool(models) and all((model, task) in pairs for model in models)
    return f"{text}{MARK}" if all_are and text != MISSING else text
