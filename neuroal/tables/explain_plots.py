"""Plots of one run, as SVG for pages and PDF for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuroal.tables import charts, plots
from neuroal.tables.reading import Curve

EMBEDDED: Any = {"pdf.fonttype": 42}
"""Fonts that publishers accept."""


@dataclass(frozen=True)
class Drawing:
    """A plot as SVG and PDF."""

    svg: bytes
    pdf: bytes

    @classmethod
    def of(cls, drawn: Figure) -> Drawing:
        """Write `drawn`; the output is deterministic."""
        buffer = BytesIO()
        drawn.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None})
        return cls(plots.svg(drawn).encode(), buffer.getvalue())


def density_by_kind(densities: pd.DataFrame) -> Drawing:
    """Draw a map of the density by block and kind of linear (columns of `Explanation`)."""
    wide = densities.pivot(index="kind", columns="block", values="density")
    wide = wide.loc[list(dict.fromkeys(densities["kind"]))]
    with mpl.rc_context({**plots.SETTINGS, **EMBEDDED, "axes.grid": False}):
        size = (min(7.0, 2.6 + 0.14 * wide.shape[1]), 0.9 + 0.26 * len(wide))
        drawn, axes = plots.figure(size)
        image = axes.imshow(wide.to_numpy(), aspect="auto", cmap="cividis", interpolation="nearest")
        axes.set_yticks(range(len(wide)), wide.index)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("block")
        drawn.colorbar(image, ax=axes, label="density")
        return Drawing.of(drawn)


def density_of_rows(rows: pd.DataFrame) -> Drawing:
    """Draw the distribution of ``density`` for each ``kind`` of linear."""
    by_kind = dict(iter(rows.groupby("kind")["density"]))
    with mpl.rc_context({**plots.SETTINGS, **EMBEDDED}):
        drawn, axes = plots.figure((4.6, 0.9 + 0.28 * len(by_kind)))
        axes.boxplot(
            [values.to_numpy() for values in by_kind.values()],
            orientation="horizontal",
            tick_labels=list(by_kind),
            whis=(5, 95),
            showfliers=False,
            medianprops={"color": plots.COLOURS[1]},
        )
        axes.invert_yaxis()
        axes.set_xlabel("density of a row")
        return Drawing.of(drawn)


def criterion(curves: Sequence[Curve]) -> Drawing:
    """Draw the criterion by λ of every step of a search, relative to the lowest."""
    with mpl.rc_context({**plots.SETTINGS, **EMBEDDED}):
        drawn = charts.criterion_by_candidate({"": curves}, [""])
        (axes,) = drawn.axes
        lines = axes.lines[::2]  # each is followed by the ring around its winner
        axes.legend(lines, [f"{curve.step}s" for curve in curves], fontsize=7, frameon=False)
        return Drawing.of(drawn)
