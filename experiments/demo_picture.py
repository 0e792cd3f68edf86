"""The demo's picture: how dense each block is, and what the search saw of each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuroal.records.schema import Record

STEPS = {"block": "λ (blocks)", "row": "λ_r (rows)"}


def draw(records: Sequence[tuple[str, Record]], path: Path) -> Path:
    """Write a PNG of two panels: density by block of all runs, criterion by candidate of the last.

    Args:
        records: name and record of each run; the last is NeuroAL's.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    blocks, candidates = figure.subplots(1, 2)
    _densities(blocks, records)
    _criteria(candidates, records[-1][1].plan["report"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _densities(axes: Axes, records: Sequence[tuple[str, Record]]) -> None:
    for name, record in records:
        found = block_densities(record)
        axes.plot(list(found), list(found.values()), "o-", label=name)
    axes.set(xlabel="block", ylabel="density", title="Density by block", ylim=(0, None))
    axes.legend(frameon=False)


def block_densities(record: Record) -> dict[int, float]:
    """Mean density of the linears of each block."""
    blocks: dict[int, list[float]] = {}
    for linear, sparsity in record.sparsity["linears"].items():
        blocks.setdefault(int(linear.partition(".")[0]), []).append(1 - sparsity)
    return {block: sum(found) / len(found) for block, found in sorted(blocks.items())}


def _criteria(axes: Axes, report: dict[str, Any]) -> None:
    for step, label in STEPS.items():
        values, criteria = report[f"candidates_{step}"], report[f"criterion_{step}"]
        (line,) = axes.plot(values, criteria, ".-", label=label)
        chosen = report[f"lambda_{step}"]
        lowest = criteria[values.index(chosen)]
        axes.plot(chosen, lowest, "o", ms=9, mfc="none", color=line.get_color())
    axes.set(xlabel="candidate", ylabel="criterion", title="Criterion by candidate (○ chosen)")
    axes.legend(frameon=False)
