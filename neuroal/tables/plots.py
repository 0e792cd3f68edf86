"""Small plots, one a panel, as SVG that reads without colour: markers and dashes differ too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from neuroal.tables.labels import label
from neuroal.tables.reading import Curve, Shape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart; without yellow, which white swallows."""
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
RING: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "markerfacecolor": "none",
    "markersize": 10,
}
WIDE_SPREAD = 6.0
"""Above this ratio of largest to smallest an axis is logarithmic."""


@dataclass(frozen=True)
class Style:
    """How one competitor is drawn, everywhere."""

    colour: str
    marker: str
    dashes: Any

    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each name; no two of the first 63 are alike in colour and marker."""
    return {
        name: Style(COLOURS[i % 7], MARKERS[i % 9], DASHES[i % 4]) for i, name in enumerate(names)
    }


def figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; no global state."""
    made = Figure(figsize=size, layout="constrained")
    return made, made.add_subplot()


def svg(made: Figure) -> str:
    """The figure as SVG; the same figure gives the same bytes."""
    buffer = BytesIO()
    made.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode()


def legend(names: Sequence[str]) -> dict[str, str]:
    """A swatch for each name, as SVG."""
    swatches = {}
    with mpl.rc_context(SETTINGS):
        for name, style in styles(names).items():
            made = Figure(figsize=(0.45, 0.18))
            axes = made.add_axes((0, 0, 1, 1))
            axes.plot([0, 1, 2], [0, 0, 0], **style.line(), markevery=[1])
            axes.set_axis_off()
            swatches[name] = svg(made)
    return swatches


def perplexity_by_sparsity(part: pd.DataFrame, names: Sequence[str]) -> str:
    """Lines: competitors; grey: dense. `part`: cells of one model, pruner and text."""
    with mpl.rc_context(SETTINGS):
        made, axes = figure()
        sparsities = list(dict.fromkeys(part["sparsity"]))
        for name, style in styles(names).items():
            line = part[part["competitor"] == name].set_index("sparsity").reindex(sparsities)
            spread = line["deviation"].fillna(0.0)
            axes.errorbar(sparsities, line["value"], yerr=spread, capsize=2, **style.line())
        dense = part["dense"].dropna()
        if len(dense):
            axes.axhline(float(dense.iloc[0]), color="#8a8f98", linewidth=1, linestyle=":")
        _scale(axes, [*part["value"], *dense])
        axes.set_xlabel("sparsity")
        axes.set_ylabel("perplexity")
        return svg(made)


def density_by_block(shapes: Mapping[str, Shape], names: Sequence[str]) -> str:
    """Lines: competitors. `shapes`: by competitor, of one model, pruner and sparsity."""
    with mpl.rc_context(SETTINGS):
        made, axes = figure()
        for name, style in styles(names).items():
            if name in shapes:
                densities = shapes[name].densities
                every = max(1, len(densities) // 8)
                axes.plot(range(len(densities)), densities, **style.line(), markevery=every)
        axes.set_xlabel("block")
        axes.set_ylabel("density")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg(made)


def criterion_by_spread(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Criterion over its least, by λ; ringed: the winner. `curves`: by sparsity."""
    with mpl.rc_context(SETTINGS):
        made, axes = figure()
        heights: list[float] = []
        for sparsity, style in styles(list(curves)).items():
            for curve in curves[sparsity]:
                least = min((c for c in curve.criteria if c > 0), default=1.0)
                height = [c / least if c > 0 else 1.0 for c in curve.criteria]
                line = style.line() | {"linestyle": "-" if curve.step == "block" else ":"}
                axes.plot(curve.candidates, height, **line, label=f"{sparsity}, {curve.step}s")
                won = curve.candidates.index(curve.winner)
                ring = RING | {"color": style.colour}
                axes.plot([curve.winner], [height[won]], **ring)
                heights += height
        axes.legend(fontsize=7, frameon=False, handlelength=2.4)
        axes.set_xlabel("λ")
        axes.set_ylabel("criterion / least")
        _scale(axes, heights)
        return svg(made)


def performance_by_runtime(part: pd.DataFrame, names: Sequence[str]) -> str:
    """Points: competitors, with the front through the best. `part`: `trade_off` of one pruner."""
    figure_of, text = ("increase", "perplexity / dense")
    if part["increase"].isna().all():
        figure_of, text = ("accuracy", "mean accuracy")
    with mpl.rc_context(SETTINGS):
        made, axes = figure((4.2, 2.9))
        front = part[part["front"]].sort_values("seconds")
        ends: dict[str, Any] = {"color": "#8a8f98", "linewidth": 1, "zorder": 1}
        axes.step(front["seconds"], front[figure_of], where="post", **ends)
        for _, row in part.iterrows():
            style = styles(names)[row["competitor"]]
            point = (row["seconds"], row[figure_of])
            axes.plot(*point, style.marker, color=style.colour, markersize=7)
            text_at: dict[str, Any] = {"xytext": (6, 5), "textcoords": "offset points"}
            axes.annotate(label(row["competitor"]), point, fontsize=8, **text_at)
        axes.set_xlabel("seconds to allocate and prune")
        axes.set_ylabel(text)
        axes.margins(x=0.15, y=0.12)
        _scale(axes, part[figure_of])
        _scale(axes, part["seconds"], "x")
        return svg(made)


def _scale(axes: Axes, values: Iterable[float], which: str = "y") -> None:
    """Logarithmic where the figures span much; plain numbers at the ticks."""
    good = [float(value) for value in values if math.isfinite(value) and value > 0]
    if good and max(good) / min(good) > WIDE_SPREAD:
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
        axis = axes.yaxis if which == "y" else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
        axis.set_minor_formatter(NullFormatter())
