"""Warn about a model whose perplexity depends on BOS at the start of windows."""

from __future__ import annotations

from collections.abc import Iterable

from neuroal.data.bos import adds_bos, begin_with_bos
from neuroal.evaluation.perplexity import perplexity
from neuroal.evaluation.tasks import PerplexityTask, Task
from neuroal.models.load import LoadedModel

WINDOWS, TOKENS = 4, 256
"""Size of the comparison: the first windows of a text, and the first tokens of each."""
RATIO = 1.1
"""Ratio of the two perplexities from which BOS matters."""


def bos_warning(loaded: LoadedModel, tasks: Iterable[Task]) -> str | None:
    """Return a warning if BOS changes the perplexity of a model by more than a tenth, else None.

    Compares the first windows of the first text in `tasks` that is cut with ``task.bos=stream``,
    if the tokenizer puts BOS at the start of texts.
    """
    texts = (t for t in tasks if isinstance(t, PerplexityTask) and t.bos == "stream")
    task = next(texts, None)
    if task is None or not adds_bos(loaded.tokenizer):
        return None
    windows = task.windows.tokens[:WINDOWS, :TOKENS]
    variants = (windows, begin_with_bos(windows, loaded.tokenizer, "task.bos"))
    stream, window = (perplexity(loaded.model, tokens).value for tokens in variants)
    if not max(stream, window) > RATIO * min(stream, window):  # also if a perplexity is NaN
        return None
    return (
        f"task.bos=stream: the perplexity of the first {len(windows)} windows of {task.name} is "
        f"{stream:.4g}, and {window:.4g} if each begins with BOS; for BOS in every window, set "
        "task.bos=window calibration.bos=window"
    )
