"""Small plots as SVG, readable without colour: markers and dashes differ as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from neuroal.tables.labels import label
from neuroal.tables.reading import Curve, RunCurves

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Palette of Okabe and Ito, safe for colour blindness, without yellow (invisible on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.2, 1.5)))
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "neuroal",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3b4048",
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#5a606a",
    "ytick.color": "#5a606a",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}
SIZE = (3.0, 2.15)
RING: Any = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markersize": 10}
LABEL_OFFSETS = ((6, 4), (6, -10), (-6, 4), (-6, -10), (6, -18), (-6, -18))
"""Offsets of a label from its point, in points, in the order of preference."""
WIDE_RANGE = 6.0
"""Ratio of the largest to the smallest figure above which an axis is logarithmic."""


@dataclass(frozen=True)
class Style:
    """Colour, marker and dashes of one competitor in all plots."""

    colour: str
    marker: str
    dashes: Any

    def line(self) -> dict[str, Any]:
        """Return the style as arguments of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Return name → style; the first 63 styles differ in colour or marker."""
    return {
        name: Style(COLOURS[i % 7], MARKERS[i % 9], DASHES[i % 4]) for i, name in enumerate(names)
    }


def figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Return a new figure with one pair of axes, without pyplot's global state."""
    new = Figure(figsize=size, layout="constrained")
    return new, new.add_subplot()


def svg(drawn: Figure) -> str:
    """Return a figure as SVG; the output is deterministic."""
    buffer = BytesIO()
    drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode()


def legend(names: Sequence[str]) -> dict[str, str]:
    """Return name → swatch as SVG."""
    swatches = {}
    with mpl.rc_context(SETTINGS):
        for name, style in styles(names).items():
            swatch = Figure(figsize=(0.45, 0.18))
            axes = swatch.add_axes((0, 0, 1, 1))
            axes.plot([0, 1, 2], [0, 0, 0], **style.line(), markevery=[1])
            axes.set_axis_off()
            swatches[name] = svg(swatch)
    return swatches


def perplexity_by_sparsity(part: pd.DataFrame, names: Sequence[str]) -> str:
    """Plot a line for each competitor, and a dotted one for the dense model."""
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure()
        sparsities = list(dict.fromkeys(part["sparsity"]))
        for name, style in styles(names).items():
            line = part[part["competitor"] == name].set_index("sparsity").reindex(sparsities)
            deviation = line["deviation"].fillna(0.0)
            axes.errorbar(sparsities, line["value"], yerr=deviation, capsize=2, **style.line())
        dense = part["dense"].dropna()
        if len(dense):
            axes.axhline(float(dense.iloc[0]), color="#8a8f98", linewidth=1, linestyle=":")
        _scale(axes, [*part["value"], *dense])
        axes.set_xlabel("sparsity")
        axes.set_ylabel("perplexity")
        return svg(drawn)


def density_by_block(curves: Mapping[str, RunCurves], names: Sequence[str]) -> str:
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
        return svg(drawn)


def criterion_by_candidate(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Plot criterion / lowest criterion by λ for each sparsity, with a ring around the winner."""
    with mpl.rc_context(SETTINGS):
        return svg(criterion_figure(curves))


def criterion_figure(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Return the figure of `criterion_by_candidate`, drawn with the current settings."""
    drawn, axes = figure()
    heights: list[float] = []
    for sparsity, style in styles(list(curves)).items():
        for curve in curves[sparsity]:
            lowest = min((c for c in curve.criteria if c > 0), default=1.0)
            height = [c / lowest if c > 0 else 1.0 for c in curve.criteria]
            line = style.line() | {"linestyle": "-" if curve.step == "block" else ":"}
            name = ", ".join(filter(None, (sparsity, f"{curve.step}s")))
            axes.plot(curve.candidates, height, **line, label=name)
            winner = curve.candidates.index(curve.winner)
            ring = RING | {"color": style.colour}
            axes.plot([curve.winner], [height[winner]], **ring)
            heights += height
    axes.legend(fontsize=7, frameon=False, handlelength=2.4)
    axes.set_xlabel("λ")
    axes.set_ylabel("criterion / lowest")
    _scale(axes, heights)
    return drawn


def performance_by_runtime(part: pd.DataFrame, names: Sequence[str]) -> str:
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
        _scale(axes, part[column])
        _scale(axes, part["seconds"], "x")
        points = zip(part["competitor"], part["seconds"], part[column], strict=True)
        _annotate(drawn, axes, {label(name): (x, y) for name, x, y in points})
        return svg(drawn)


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


def _scale(axes: Axes, values: Iterable[float], axis_name: str = "y") -> None:
    """Make an axis logarithmic if its figures span a wide range, with plain numbers as ticks."""
    positive = [float(value) for value in values if math.isfinite(value) and value > 0]
    if positive and max(positive) / min(positive) > WIDE_RANGE:
        (axes.set_yscale if axis_name == "y" else axes.set_xscale)("log")
        axis = axes.yaxis if axis_name == "y" else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
        axis.set_minor_formatter(NullFormatter())
