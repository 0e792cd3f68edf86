"""The command ``neuroal-eval``: evaluate a model without pruning it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from neuroal.cli.application import exit_with, start
from neuroal.cli.help import PRUNING, evaluation_help
from neuroal.cli.jobs import Result
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.evaluation.tasks import prepare, require
from neuroal.models.devices import replicas, resolve_device
from neuroal.models.load import load_model
from neuroal.parallel.replicated import replicated, starting
from neuroal.records.dense_cache import evaluate_cached
from neuroal.records.store import prepare_out
from neuroal.tracking import progress_for

Metrics = dict[str, dict[str, Any]]
"""Task → ``kind``, ``limit``, ``seqlen``, ``bos`` and its figures."""


def main() -> NoReturn:
    """Run the console script ``neuroal-eval``."""
    exit_with(lambda: start(_evaluate, evaluation_help, _refuse_pruning))


def _refuse_pruning(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in PRUNING:
            raise UserError(f"{override}: neuroal-eval prunes nothing; remove this override")


def _evaluate(config: RunConfig) -> Result:
    name, metrics = evaluate_model(config)
    shown = lambda: Console().print(table(name, metrics))  # noqa: E731
    return Result({"model": name, "tasks": metrics}, shown, in_table=False)


def evaluate_model(config: RunConfig) -> tuple[str, Metrics]:
    """Evaluate the model of `config` on its tasks; return its name and the figures.

    Results with the same weights, data and versions are read from the cache ``OUT/measured``, which
    runs share.
    """
    if not config.task.names:
        raise UserError("task=none: nothing to measure; use task=lm or task.names=[…]")
    out, device = prepare_out(config.out), resolve_device(config.device)
    devices = replicas(device, config.devices, config.offload)
    require(config.task.names, config.data.root)
    progress, batch = progress_for(config.progress), config.task.batch
    with starting(devices) as group:
        loaded = load_model(config.model, device, config.offload, devices=config.devices)
        tasks = prepare(config.task, loaded.tokenizer, loaded.context, config.data.root)
        with replicated(loaded.model, devices, group):
            figures = evaluate_cached(loaded, tasks, batch, out, progress, "evaluate")
    return loaded.name, {task.name: {**task.terms, **figures[task.name]} for task in tasks}


def table(title: str, metrics: Metrics) -> Table:
    """Return a table of the figures of one model, with one row per figure of a task."""
    shown = Table(title=title, title_justify="left")
    for column in ("task", "figure", "value", "± stderr", "of", "limit"):
        shown.add_column(column, justify="left" if column in ("task", "figure") else "right")
    for name, figures in metrics.items():
        limit = "" if figures["limit"] is None else str(figures["limit"])
        for figure, value, stderr, unit in _rows(figures):
            error = "" if stderr is None else f"{stderr:.4g}"
            shown.add_row(name, figure, f"{value:.5g}", error, unit, limit)
    return shown


def _rows(figures: dict[str, Any]) -> list[tuple[str, float, float | None, str]]:
    """Return name, value, standard error and sample size of the figures of one task."""
    if figures["kind"] == "perplexity":
        bos = " with BOS" if figures["bos"] == "window" else ""
        unit = f"{figures['windows']} windows × {figures['seqlen']}{bos}"
        return [("perplexity", figures["value"], figures["stderr"], unit)]
    unit = f"{figures['documents']} documents"
    return [
        (name, figures[name], figures.get(f"{name}_stderr"), unit)
        for name in ("acc", "acc_norm")
        if name in figures
    ]
