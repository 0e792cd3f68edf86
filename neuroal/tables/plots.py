"""Style of all plots, readable without colour: markers and dashes differ as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Palette of Okabe and Ito, safe for colour blindness, without yellow (invisible on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.2, 1.5)))
SETTINGS: Any = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType, which publishers accept
    "svg.hashsalt": "neuroal",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # bundled, so that all machines write the same bytes
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
DENSE: Any = {"color": "#6b717b", "linewidth": 1.2, "linestyle": ":"}
"""Line of the dense model."""
RING: Any = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markersize": 10}
WIDE_RANGE = 6.0
"""Ratio of the largest to the smallest figure above which an axis is logarithmic."""
STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Choices of the first digits of ticks on a logarithmic axis, from few to many."""
FEWEST_TICKS = 3
"""Number of ticks that an axis has at least, if its range allows."""


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
    return _saved(drawn, "svg", {"Date": None, "Creator": None}).decode()


def pdf(drawn: Figure) -> bytes:
    """Return a figure as PDF; the output is deterministic."""
    return _saved(drawn, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})


def _saved(drawn: Figure, form: str, metadata: Mapping[str, None]) -> bytes:
    buffer = BytesIO()
    with mpl.rc_context(SETTINGS):
        drawn.savefig(buffer, format=form, transparent=True, metadata=metadata)
    return buffer.getvalue()


def swatches(lines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the entries of a legend: name → line as SVG, from name → arguments of `Axes.plot`."""
    drawn = {}
    with mpl.rc_context(SETTINGS):
        for name, line in lines.items():
            swatch = Figure(figsize=(0.45, 0.18))
            axes = swatch.add_axes((0, 0, 1, 1))
            axes.plot([0, 1, 2], [0, 0, 0], **line, markevery=[1])
            axes.set_axis_off()
            drawn[name] = svg(swatch)
    return drawn


def scale(axes: Axes, values: Iterable[float], axis_name: str = "y") -> None:
    """Make an axis logarithmic if its figures span a wide range, with plain numbers as ticks."""
    positive = positive_of(values)
    if positive and max(positive) / min(positive) > WIDE_RANGE:
        logarithmic(axes, (min(positive), max(positive)), axis_name)


def positive_of(values: Iterable[float]) -> list[float]:
    """Return the figures that a logarithmic axis can show."""
    return [float(value) for value in values if math.isfinite(value) and value > 0]


def logarithmic(axes: Axes, limits: tuple[float, float], axis_name: str = "y") -> None:
    """Make an axis logarithmic, with plain numbers as ticks between `limits`."""
    (axes.set_yscale if axis_name == "y" else axes.set_xscale)("log")
    axis = axes.yaxis if axis_name == "y" else axes.xaxis
    axis.set_major_locator(FixedLocator(log_ticks(*limits)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from below `low` to above `high`, with at least a few between them."""
    for steps in STEPS:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        ticks = [digit * 10.0**decade for decade in decades for digit in steps]
        if sum(low <= tick <= high for tick in ticks) >= FEWEST_TICKS:
            return ticks
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if tick > 0]
