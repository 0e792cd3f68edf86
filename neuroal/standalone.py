"""What ``neuroal-eval`` does: measure a model as it is, pruned here, elsewhere, or not at all."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from neuroal.config import RunConfig
from neuroal.errors import UserError
from neuroal.evaluation.tasks import prepare, require
from neuroal.measure import MEASURED, measure_once
from neuroal.models.load import load_model, resolve_device
from neuroal.records.store import prepare_out
from neuroal.tracking import Progress, progress_for_terminal

Metrics = dict[str, dict[str, Any]]


def evaluate_model(config: RunConfig, progress: Progress | None = None) -> Metrics:
    """Measure the model of `config` on its tasks and print the figures.

    What was measured before with the same weights, data and versions is read from ``OUT/measured``,
    where runs find it too.

    Returns:
        Task → ``kind``, ``limit``, ``seqlen`` and its figures.

    Raises:
        UserError: a mistake in `config`.
    """
    if not config.task.names:
        raise UserError("task=none: nothing to measure; give task=lm or task.names=[…]")
    out, device = prepare_out(config.out), resolve_device(config.device)
    require(config.task.names, config.data.root)
    loaded = load_model(config.model, device, config.offload, out)
    tasks = prepare(config.task, loaded.tokenizer, loaded.context, config.data.root)
    found = measure_once(
        loaded,
        tasks,
        config.task.batch,
        out / MEASURED,
        progress or progress_for_terminal(),
        "evaluate",
    )
    metrics = {task.name: {**task.terms, **found[task.name]} for task in tasks}
    Console().print(table(loaded.name, metrics))
    return metrics


def table(title: str, metrics: Metrics) -> Table:
    """The figures of one model, a row for each task."""
    shown = Table(title=title, title_justify="left")
    for column in ("task", "figure", "value", "± stderr", "of", "limit"):
        shown.add_column(column, justify="left" if column in ("task", "figure") else "right")
    for name, figures in metrics.items():
        limit = "" if figures["limit"] is None else str(figures["limit"])
        for figure, value, stderr, unit in _rows(figures):
            spread = "" if stderr is None else f"{stderr:.4g}"
            shown.add_row(name, figure, f"{value:.5g}", spread, unit, limit)
    return shown


def _rows(figures: dict[str, Any]) -> list[tuple[str, float, float | None, str]]:
    if figures["kind"] == "perplexity":
        unit = f"{figures['windows']} windows × {figures['seqlen']}"
        return [("perplexity", figures["value"], figures["stderr"], unit)]
    unit = f"{figures['documents']} documents"
    return [
        (name, figures[name], figures.get(f"{name}_stderr"), unit)
        for name in ("acc", "acc_norm")
        if name in figures
    ]
