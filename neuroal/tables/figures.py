"""The plots of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuroal.files.atomic import write_bytes
from neuroal.tables import charts, plots
from neuroal.tables.html import details, legend, panel, panels
from neuroal.tables.labels import in_order, label
from neuroal.tables.reading import RunCurves
from neuroal.tables.study import Study

ERROR_BARS = (
    "<p>All panels of a text share one logarithmic axis. Error bars: standard deviation over "
    "seeds, or standard error of a single seed.</p>\n"
)


def quality(study: Study) -> str:
    """Return plots of perplexity by sparsity: a panel per pruner and model, folded by text."""
    items: dict[str, list[str]] = {}
    for (task, model, pruner), plot in quality_plots(study).items():
        caption = f"{label(model)}, {label(pruner)}"
        alternative = f"Perplexity on {label(task)} by sparsity"
        items.setdefault(task, []).append(panel(plots.svg(plot), caption, alternative))
    parts: list[str] = []
    for task, of_task in items.items():
        parts.append(details(label(task), panels(of_task), opened=not parts))
    return _legend(study, dense=True) + ERROR_BARS + "".join(parts) if parts else ""


def quality_plots(study: Study, with_legend: bool = False) -> dict[tuple[str, str, str], Figure]:
    """Return (task, model, pruner) → plot of perplexity by sparsity; those of a task share axes."""
    names = study.expected.competitors
    lm = study.cells[(study.cells["kind"] == "perplexity") & (study.cells["state"] != "missing")]
    groups = dict(iter(lm.groupby(["task", "model", "pruner"], sort=False)))
    limits = {task: charts.perplexity_limits(part) for task, part in lm.groupby("task")}
    keys = [(task, *pair) for task in study.expected.axis("task") for pair in _pairs(study)]
    return {
        key: charts.perplexity_by_sparsity(groups[key], names, limits[key[0]], with_legend)
        for key in keys
        if key in groups
    }


def density(study: Study) -> str:
    """Return plots of density by block at the middle sparsity: a panel per pruner and model."""
    names, sparsities = study.expected.competitors, study.expected.axis("sparsity")
    middle = sparsities[len(sparsities) // 2]
    all_curves = _first_curves(study)
    items = []
    for model, pruner in _pairs(study):
        keys = {name: (model, pruner, middle, name) for name in names}
        curves = {name: all_curves[key] for name, key in keys.items() if key in all_curves}
        if curves:
            caption = f"{label(model)}, {label(pruner)}, {middle}"
            plot = plots.svg(charts.density_by_block(curves, names))
            items.append(panel(plot, caption, "Density by block"))
    return _legend(study) + panels(items) if items else ""


def criterion(study: Study) -> str:
    """Return plots of criterion by λ of all searches: a panel per pruner and model."""
    searches = {key: run.curves for key, run in _first_curves(study).items() if run.curves}
    sparsities = [s for s in study.expected.axis("sparsity") if any(s in key for key in searches)]
    parts: list[str] = []
    for name in in_order(key[-1] for key in searches):
        items = []
        for model, pruner in _pairs(study):
            keys = {s: (model, pruner, s, name) for s in sparsities}
            curves = {s: searches[key] for s, key in keys.items() if key in searches}
            if curves:
                caption = f"{label(model)}, {label(pruner)}"
                plot = plots.svg(charts.criterion_by_candidate(curves, sparsities))
                items.append(panel(plot, caption, f"Criterion by λ, {label(name)}"))
        parts.append(details(label(name), panels(items), opened=not parts))
    entries = plots.swatches(charts.search_lines(sparsities))
    return legend(entries) + "".join(parts) if parts else ""


def trade(frame: pd.DataFrame, study: Study) -> str:
    """Return plots of performance against runtime: a panel per pruner and device."""
    items = [
        panel(plots.svg(plot), f"{label(pruner)}, {device}", "Performance by runtime")
        for (pruner, device), plot in trade_plots(frame, study).items()
    ]
    return panels(items, wide=True) if items else ""


def trade_plots(frame: pd.DataFrame, study: Study) -> dict[tuple[str, str], Figure]:
    """Return (pruner, device) → plot of performance against runtime."""
    names = study.expected.competitors
    groups = frame.groupby(["pruner", "device"], sort=False)
    return {
        (str(pruner), str(device)): charts.performance_by_runtime(part, names)
        for (pruner, device), part in groups
    }


def write_figures(study: Study, folder: Path) -> list[Path]:
    """Write the plots of quality and of performance against runtime; return the paths.

    Each plot is written as SVG and as PDF, with its legend.
    """
    named = {
        f"perplexity-{'-'.join(key)}": plot
        for key, plot in quality_plots(study, with_legend=True).items()
    } | {
        f"performance-runtime-{pruner}-{device}": plot
        for (pruner, device), plot in trade_plots(study.trade(), study).items()
    }
    paths = []
    for name, plot in named.items():
        for suffix, content in (("svg", plots.svg(plot).encode()), ("pdf", plots.pdf(plot))):
            paths.append(folder / f"{file_name(name)}.{suffix}")
            write_bytes(paths[-1], content)
    return paths


def file_name(text: str) -> str:
    """Return `text` with hyphens for all characters other than letters, digits and points."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()


def _legend(study: Study, dense: bool = False) -> str:
    """Return the legend of the competitors, and of the dense model if `dense`."""
    styles = plots.styles(study.expected.competitors)
    lines = {label(name): style.line() for name, style in styles.items()}
    return legend(plots.swatches(lines | ({"dense": plots.DENSE} if dense else {})))


def _pairs(study: Study) -> list[tuple[str, str]]:
    axis = study.expected.axis
    return [(model, pruner) for pruner in axis("pruner") for model in axis("model")]


def _first_curves(study: Study) -> dict[tuple[str, ...], RunCurves]:
    """Return (model, pruner, sparsity, competitor) → curves of the first seed's expected run."""
    identities, seed = set(study.costs["identity"]), study.expected.seeds[0]
    return {
        tuple(entry.run[name] for name in ("model", "pruner", "sparsity", "competitor")): entry
        for entry in study.frames.curves
        if entry.run["identity"] in identities and entry.run["seed"] == seed
    }
