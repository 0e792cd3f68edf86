"""The command ``neuroal-eval``: evaluate a model without pruning it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from neuroal.cli.application import exit_with, start
from neuroal.cli.help import PRUNING, evaluation_help
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.evaluation.speed import speeds
from neuroal.evaluation.tasks import prepare, require
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import replicas, resolve_device
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.semi_structured import has_two_of_four, why_no_kernels
from neuroal.parallel.replicated import replicated, starting
from neuroal.records.dense_cache import evaluate_cached
from neuroal.records.store import prepare_out
from neuroal.tracking import progress_for_terminal

Metrics = dict[str, dict[str, Any]]
"""Task → ``kind``, ``limit``, ``seqlen``, ``bos`` and its figures."""

OWN = ("value", "stderr")
"""Figures of a task of lm-eval that repeat its main metric."""


def main() -> NoReturn:
    """Run the console script ``neuroal-eval``."""
    exit_with(lambda: start(evaluate_model, evaluation_help, _refuse_pruning))


def _refuse_pruning(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in PRUNING:
            raise UserError(f"{override}: neuroal-eval prunes nothing; remove this override")


def evaluate_model(config: RunConfig) -> Metrics:
    """Evaluate the model of `config` on its tasks, print a table, and return the figures.

    Results with the same weights, data and versions are read from the cache ``OUT/measured``, which
    runs share.
    """
    if not (config.task.names or config.task.speed):
        raise UserError("task=none: nothing to measure; use task=lm or task.names=[…]")
    if config.task.speed and (config.offload != "none" or config.devices > 1):
        raise UserError("task.speed=true: needs offload=none and devices=1")
    out, device = prepare_out(config.out), resolve_device(config.device)
    devices = replicas(device, config.devices, config.offload)
    require(config.task, config.data.root)
    progress, batch = progress_for_terminal(), config.task.batch
    with starting(devices) as group:
        loaded = load_model(config.model, device, config.offload, devices=config.devices)
        tasks = prepare(config.task, loaded.tokenizer, loaded.context, config.data.root)
        with replicated(loaded.model, devices, group):
            figures = evaluate_cached(loaded, tasks, batch, out, progress, "evaluate")
    metrics = {task.name: {**task.terms, **figures[task.name]} for task in tasks}
    if metrics:
        Console().print(table(loaded.name, metrics))
    if config.task.speed:
        Console().print(speed_table(loaded, batch))
    return metrics


def speed_table(loaded: LoadedModel, batch: int | None) -> Table:
    """Measure the speed of a model; return it as a table, with one row per kind of kernel."""
    decoder = DecoderModel(loaded.model)
    why = why_no_kernels(decoder) if has_two_of_four(decoder) else None
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    shown = Table(title=f"{loaded.name}, {dtype}, {loaded.model.device}", title_justify="left")
    heads = ("kernels", "batch × prompt", "prefill (tokens/s)", "decode (tokens/s)")
    for head in (*heads, "weights (MiB)", "peak memory (MiB)"):
        shown.add_column(head, justify="left" if head == "kernels" else "right")
    for speed in speeds(loaded.model, loaded.context, batch or 1):
        sizes = [f"{size / 2**20:,.0f}" for size in (speed.weight_bytes, speed.peak_bytes)]
        rates = [f"{rate:,.1f}" for rate in (speed.prefill, speed.decode)]
        shown.add_row(speed.kernels, f"{speed.batch} × {speed.prompt}", *rates, *sizes)
    if why is not None:
        shown.caption = f"The weights are 2:4, but 2:4 kernels cannot run: {why}."
    return shown


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
    if "metric" in figures:
        unit += "" if figures["prompt"] == "stock" else f", {figures['prompt']}"
        return [
            (name.replace(",", ", "), value, figures.get(_stderr_of(name)), unit)
            for name, value in figures.items()
            if isinstance(value, float) and "_stderr" not in name and name not in OWN
        ]
    return [
        (name, figures[name], figures.get(f"{name}_stderr"), unit)
        for name in ("acc", "acc_norm")
        if name in figures
    ]


def _stderr_of(name: str) -> str:
    """Return the name of the standard error of a metric, such as ``exact_match,strict``."""
    head, comma, used_filter = name.partition(",")
    return f"{head}_stderr{comma}{used_filter}"
