"""The command ``neuroal-eval``: evaluate a model without pruning it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from neuroal.cli.application import exit_with, start
from neuroal.cli.help import PRUNING, evaluation_help
from neuroal.cli.jobs import Result
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.evaluation.speed import Speed, speeds
from neuroal.evaluation.tasks import prepare, require
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import replicas, resolve_device
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.semi_structured import has_two_of_four, why_no_kernels
from neuroal.parallel.replicated import replicated, starting
from neuroal.records.dense_cache import evaluate_cached
from neuroal.records.store import prepare_out
from neuroal.tracking import progress_for

Metrics = dict[str, dict[str, Any]]
"""Task → ``kind``, ``limit``, ``seqlen``, ``bos`` and its figures."""

OWN = ("value", "stderr")
"""Figures of a task of lm-eval that repeat its main metric."""


def main() -> NoReturn:
    """Run the console script ``neuroal-eval``."""
    exit_with(lambda: start(_evaluate, evaluation_help, _refuse_pruning))


def _refuse_pruning(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in PRUNING:
            raise UserError(f"{override}: neuroal-eval prunes nothing; remove this override")


def _evaluate(config: RunConfig) -> Result:
    name, metrics, speed = evaluate_model(config)
    content: dict[str, Any] = {"model": name, "tasks": metrics}
    if speed is not None:
        content["speed"] = [dataclasses.asdict(measured) for measured in speed.speeds]

    def show() -> None:
        if metrics:
            Console().print(table(name, metrics))
        if speed is not None:
            Console().print(speed_table(speed))

    return Result(content, show, in_table=False)


@dataclass(frozen=True)
class ModelSpeed:
    """Speed of a model.

    Attributes:
        model: its name, dtype and device.
        speeds: one measurement per kind of kernel.
        why_no_kernels: why 2:4 kernels cannot run; None: they run, or the weights are not 2:4.
    """

    model: str
    speeds: tuple[Speed, ...]
    why_no_kernels: str | None

    @classmethod
    def of(cls, loaded: LoadedModel, batch: int | None) -> ModelSpeed:
        """Measure the speed of a model, whose weights may be replaced."""
        decoder = DecoderModel(loaded.model)
        why = why_no_kernels(decoder) if has_two_of_four(decoder) else None
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        measured = tuple(speeds(loaded.model, loaded.context, batch or 1))
        return cls(f"{loaded.name}, {dtype}, {loaded.model.device}", measured, why)


def evaluate_model(config: RunConfig) -> tuple[str, Metrics, ModelSpeed | None]:
    """Evaluate the model of `config`; return its name, its figures, and its speed if requested.

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
    progress, batch = progress_for(config.progress), config.task.batch
    with starting(devices) as group:
        loaded = load_model(config.model, device, config.offload, devices=config.devices)
        tasks = prepare(config.task, loaded.tokenizer, loaded.context, config.data.root)
        with replicated(loaded.model, devices, group):
            figures = evaluate_cached(loaded, tasks, batch, out, progress, "evaluate")
    metrics = {task.name: {**task.terms, **figures[task.name]} for task in tasks}
    return loaded.name, metrics, ModelSpeed.of(loaded, batch) if config.task.speed else None


def speed_table(measured: ModelSpeed) -> Table:
    """Return the speed of a model as a table, with one row per kind of kernel."""
    shown = Table(title=measured.model, title_justify="left")
    heads = ("kernels", "batch × prompt", "prefill (tokens/s)", "decode (tokens/s)")
    for head in (*heads, "weights (MiB)", "peak memory (MiB)"):
        shown.add_column(head, justify="left" if head == "kernels" else "right")
    for speed in measured.speeds:
        sizes = [f"{size / 2**20:,.0f}" for size in (speed.weight_bytes, speed.peak_bytes)]
        rates = [f"{rate:,.1f}" for rate in (speed.prefill, speed.decode)]
        shown.add_row(speed.kernels, f"{speed.batch} × {speed.prompt}", *rates, *sizes)
    if (why := measured.why_no_kernels) is not None:
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
