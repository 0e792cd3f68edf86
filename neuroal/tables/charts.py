"""The four kinds of plots: perplexity, density, criterion, performance against runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroal.tables.labels import label
from neuroal.tables.plots import (
    DENSE,
    RING,
    SETTINGS,
    SIZE,
    figure,
    logarithmic,
    positive_of,
    scale,
    styles,
)
from neuroal.tables.reading import Curve, RunCurves

LABEL_OFFSETS = ((6, 4), (6, -10), (-6, 4), (-6, -10), (6, -18), (-6, -18))
"""Offsets of a label from its point, in points, in the order of preference."""
LINES = {"block": "-", "row": ":"}
"""Step of a search → its line."""
MARGIN = 1.15
"""Ratio between the ends of a logarithmic axis and the outermost figures."""
SIDE_BY_SIDE = 0.3
"""Width over which the competitors at one sparsity are distributed; sparsities are 1 apart."""


def perplexity_limits(cells: pd.DataFrame) -> tuple[float, float] | None:
    """Return the ends of the axis that the panels of one text share; None: nothing to show."""
    error = errors(cells)
    figures = positive_of([*cells["value"], *(cells["value"] + error), *cells["dense"]])
    return (min(figures) / MARGIN, max(figures) * MARGIN) if figures else None


def errors(cells: pd.DataFrame) -> pd.Series:
    """Return the half-lengths of error bars: deviation over seeds, or standard error of one."""
    return cells["deviation"].fillna(cells["stderr"]).fillna(0.0)


def perplexity_by_sparsity(
    part: pd.DataFrame,
    names: Sequence[str],
    limits: tuple[float, float] | None,
    with_legend: bool = False,
) -> Figure:
    """Plot a line for each competitor, and a dotted one for the dense model, on a common axis.

    Competitors are drawn side by side, so that their error bars do not cover each other.
    """
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure((3.6, 2.9) if with_legend else SIZE)
        sparsities = list(dict.fromkeys(part["sparsity"]))
        for i, (name, style) in enumerate(styles(names).items()):
            line = part[part["competitor"] == name].set_index("sparsity").reindex(sparsities)
            if line["value"].isna().all():
                continue
            shift = SIDE_BY_SIDE * ((i + 0.5) / len(names) - 0.5)
            x = [position + shift for position in range(len(sparsities))]
            drawn_as = style.line() | {"capsize": 2, "elinewidth": 1, "label": label(name)}
            axes.errorbar(x, line["value"], yerr=errors(line), **drawn_as)
        dense = part["dense"].dropna()
        if len(dense):
            axes.axhline(float(dense.iloc[0]), **DENSE, label="dense")
        if limits:
            logarithmic(axes, limits)
            axes.set_ylim(*limits)
        axes.set_xticks(range(len(sparsities)), sparsities)
        axes.set_xlim(-0.5, len(sparsities) - 0.5)
        axes.set_xlabel("sparsity")
        axes.set_ylabel("perplexity")
        if with_legend:
            drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7)
        return drawn


def density_by_block(curves: Mapping[str, RunCurves], names: Sequence[str]) -> Figure:
    """Plot a line for each competitor."""
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure()
        for name, style in styles(names).items():
            if name in curves:
                densities = curves[name].densities
                every = max(1, len(densities) // 8)
                axes.plot(range(len(densities)), densities, **style.line(), markevery=every)
        axes.set_xlabel("block")
        axes.set_ylabel("density")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return drawn


def search_lines(sparsities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the legend of `criterion_by_candidate`: entry → arguments of `Axes.plot`."""
    grey = {"color": "#3b4048"}
    points = {name: style.line() | {"linestyle": ""} for name, style in styles(sparsities).items()}
    return points | {
        "blocks": grey | {"linestyle": LINES["block"]},
        "rows": grey | {"linestyle": LINES["row"]},
        "chosen λ": grey | RING | {"markersize": 8},
    }


def criterion_by_candidate(
    curves: Mapping[str, Sequence[Curve]], sparsities: Sequence[str]
) -> Figure:
    """Plot criterion / lowest criterion by λ for each sparsity, with a ring around the winner.

    `sparsities` are those of all panels, so that each has the same style in all of them.
    """
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure()
        heights: list[float] = []
        for sparsity, style in styles(sparsities).items():
            for curve in curves.get(sparsity, ()):
                lowest = min((c for c in curve.criteria if c > 0), default=1.0)
                height = [c / lowest if c > 0 else 1.0 for c in curve.criteria]
                line = style.line() | {"linestyle": LINES[curve.step]}
                axes.plot(curve.candidates, height, **line)
                winner = curve.candidates.index(curve.winner)
                ring = RING | {"color": style.colour}
                axes.plot([curve.winner], [height[winner]], **ring)
                heights += height
        axes.set_xlabel("λ")
        axes.set_ylabel("criterion / lowest")
        scale(axes, heights)
        return drawn


def performance_by_runtime(part: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Plot the rows of `runtime.trade_off` of one pruner and device, and the Pareto front."""
    column, heading = ("increase", "perplexity / dense")
    if part["increase"].isna().all():
        column, heading = ("accuracy", "mean accuracy")
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure((4.8, 3.0))
        front = part[part["front"]].sort_values("seconds")
        seconds, performance = front["seconds"], front[column]
        axes.step(seconds, performance, where="post", color="#8a8f98", linewidth=1, zorder=1)
        for _, row in part.iterrows():
            style = styles(names)[row["competitor"]]
            point = (row["seconds"], row[column])
            axes.plot(*point, style.marker, color=style.colour, markersize=7)
        axes.set_xlabel("seconds to allocate and prune")
        axes.set_ylabel(heading)
        axes.margins(x=0.3, y=0.12)
        scale(axes, part[column])
        scale(axes, part["seconds"], "x")
        points = zip(part["competitor"], part["seconds"], part[column], strict=True)
        _annotate(drawn, axes, {label(name): (x, y) for name, x, y in points})
        return drawn


def _annotate(drawn: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write a label beside each point, where it overlaps no other label and lies in the figure."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()  # type: ignore[no-untyped-call]  # fixes the layout
    taken: list[Any] = []
    for text, point in points.items():
        for dx, dy in LABEL_OFFSETS:
            mark = axes.annotate(
                text, point, xytext=(dx, dy), textcoords="offset points", fontsize=7.5,
                ha="left" if dx > 0 else "right",
            )  # fmt: skip
            box = mark.get_window_extent()
            inside = box.x0 >= axes.bbox.x0 and box.x1 <= drawn.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            if (dx, dy) != LABEL_OFFSETS[-1]:
                mark.remove()
        taken.append(box)
