"""Which plots the report shows of a study."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from neuroal.tables import plots
from neuroal.tables.html import details, legend, panel, panels
from neuroal.tables.labels import in_order, label
from neuroal.tables.reading import Shape
from neuroal.tables.study import Study


def quality(of: Study) -> str:
    """Perplexity by sparsity: a panel for each pruner and model, folded by text."""
    names = of.expected.competitors
    lm = of.cells[(of.cells["kind"] == "perplexity") & (of.cells["state"] != "missing")]
    parts: list[str] = []
    for task in of.expected.axis("task"):
        of_task = lm[lm["task"] == task]
        made = [
            panel(
                plots.perplexity_by_sparsity(part, names),
                f"{label(model)}, {label(pruner)}",
                f"Perplexity on {label(task)} by sparsity",
            )
            for (model, pruner), part in _by(of_task, of)
        ]
        if made:
            parts.append(details(label(task), panels(made), opened=not parts))
    return _legend(of) + "".join(parts) if parts else ""


def density(of: Study) -> str:
    """Density by block at the middle sparsity: a panel for each pruner and model."""
    sparsities = of.expected.axis("sparsity")
    middle = sparsities[len(sparsities) // 2]
    groups = _shapes(of, middle)
    made = [
        panel(
            plots.density_by_block(shapes, of.expected.competitors),
            f"{label(model)}, {label(pruner)}, {middle}",
            "Density by block",
        )
        for (model, pruner), shapes in groups.items()
    ]
    return _legend(of) + panels(made) if made else ""


def criterion(of: Study) -> str:
    """Criterion by λ of every competitor that searched: a panel for each pruner and model."""
    seed = of.expected.seeds[0]
    curves: dict[tuple[str, str, str], dict[str, Shape]] = {}
    for shape in _answering(of):
        run = shape.run
        key = (run["competitor"], run["model"], run["pruner"])
        if shape.curves and run["seed"] == seed:
            curves.setdefault(key, {})[run["sparsity"]] = shape
    order = in_order(key[0] for key in curves)
    parts: list[str] = []
    for name in order:
        made = [
            panel(
                plots.criterion_by_spread(
                    {s: found[s].curves for s in of.expected.axis("sparsity") if s in found}
                ),
                f"{label(model)}, {label(pruner)}",
                f"Criterion by λ, {label(name)}",
            )
            for (model, pruner) in _pairs(of)
            if (found := curves.get((name, model, pruner)))
        ]
        parts.append(details(label(name), panels(made), opened=not parts))
    return "".join(parts)


def trade(frame: pd.DataFrame, of: Study) -> str:
    """Performance against runtime: a panel for each pruner and device."""
    made = [
        panel(
            plots.performance_by_runtime(part, of.expected.competitors),
            f"{label(str(pruner))}, {device}",
            "Performance by runtime",
        )
        for (pruner, device), part in frame.groupby(["pruner", "device"], sort=False)
    ]
    return panels(made, wide=True) if made else ""


def _legend(of: Study) -> str:
    swatches = plots.legend(of.expected.competitors)
    return legend({label(name): svg for name, svg in swatches.items()})


def _pairs(of: Study) -> list[tuple[str, str]]:
    axis = of.expected.axis
    return [(model, pruner) for pruner in axis("pruner") for model in axis("model")]


def _by(part: pd.DataFrame, of: Study) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    groups = dict(iter(part.groupby(["model", "pruner"], sort=False)))
    return [(pair, groups[pair]) for pair in _pairs(of) if pair in groups]


def _answering(of: Study) -> list[Shape]:
    answering = set(of.paid["identity"])
    return [shape for shape in of.all.shapes if shape.run["identity"] in answering]


def _shapes(of: Study, sparsity: str) -> Mapping[tuple[str, str], dict[str, Shape]]:
    """Shapes by model and pruner, then competitor, of the first seed."""
    groups: dict[tuple[str, str], dict[str, Shape]] = {pair: {} for pair in _pairs(of)}
    for shape in _answering(of):
        run = shape.run
        if run["seed"] == of.expected.seeds[0] and run["sparsity"] == sparsity:
            groups[run["model"], run["pruner"]][run["competitor"]] = shape
    return {pair: shapes for pair, shapes in groups.items() if shapes}
