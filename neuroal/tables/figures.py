"""The plots of the report."""

from __future__ import annotations

import pandas as pd

from neuroal.tables import plots
from neuroal.tables.html import details, legend, panel, panels
from neuroal.tables.labels import in_order, label
from neuroal.tables.reading import RunCurves
from neuroal.tables.study import Study


def quality(study: Study) -> str:
    """Return plots of perplexity by sparsity: a panel per pruner and model, folded by text."""
    names = study.expected.competitors
    lm = study.cells[(study.cells["kind"] == "perplexity") & (study.cells["state"] != "missing")]
    groups = dict(iter(lm.groupby(["task", "model", "pruner"], sort=False)))
    parts: list[str] = []
    for task in study.expected.axis("task"):
        items = [
            panel(
                plots.perplexity_by_sparsity(groups[task, model, pruner], names),
                f"{label(model)}, {label(pruner)}",
                f"Perplexity on {label(task)} by sparsity",
            )
            for model, pruner in _pairs(study)
            if (task, model, pruner) in groups
        ]
        if items:
            parts.append(details(label(task), panels(items), opened=not parts))
    return _legend(study) + "".join(parts) if parts else ""


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
            items.append(panel(plots.density_by_block(curves, names), caption, "Density by block"))
    return _legend(study) + panels(items) if items else ""


def criterion(study: Study) -> str:
    """Return plots of criterion by λ of all searches: a panel per pruner and model."""
    searches = {key: run.curves for key, run in _first_curves(study).items() if run.curves}
    parts: list[str] = []
    for name in in_order(key[-1] for key in searches):
        items = []
        for model, pruner in _pairs(study):
            keys = {s: (model, pruner, s, name) for s in study.expected.axis("sparsity")}
            curves = {s: searches[key] for s, key in keys.items() if key in searches}
            if curves:
                caption = f"{label(model)}, {label(pruner)}"
                plot = plots.criterion_by_candidate(curves)
                items.append(panel(plot, caption, f"Criterion by λ, {label(name)}"))
        parts.append(details(label(name), panels(items), opened=not parts))
    return "".join(parts)


def trade(frame: pd.DataFrame, study: Study) -> str:
    """Return plots of performance against runtime: a panel per pruner and device."""
    items = [
        panel(
            plots.performance_by_runtime(part, study.expected.competitors),
            f"{label(str(pruner))}, {device}",
            "Performance by runtime",
        )
        for (pruner, device), part in frame.groupby(["pruner", "device"], sort=False)
    ]
    return panels(items, wide=True) if items else ""


def _legend(study: Study) -> str:
    swatches = plots.legend(study.expected.competitors)
    return legend({label(name): svg for name, svg in swatches.items()})


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
