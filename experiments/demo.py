"""Prune the embedded model: dense, then Wanda at 70 % with uniform and with NeuroAL.

    python experiments/demo.py

Prints a table, and writes a picture of the density by block and of the criterion by candidate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from neuroal.cli.compose import composed
from neuroal.records.schema import Record
from neuroal.run import run

RUN = ["model=zoo/llama", "pruner=wanda", "sparsity=s70", "calibration.windows=32", "task.limit=64"]
STEPS = {"block": "λ (blocks)", "row": "λ_r (rows)"}


def main() -> None:
    console = Console()
    start = time.perf_counter()
    records: list[tuple[str, Record]] = []
    for topup in ("uniform", "neuroal"):
        console.print(f"[bold]neuroal {' '.join(RUN)} topup={topup}[/bold]")
        record, path = run(composed([*RUN, f"topup={topup}"]))
        console.print(f"record: {path}\n")
        records.append((topup, record))
    console.print(table(records))
    report = records[-1][1].plan["report"]
    console.print(
        f"NeuroAL chose λ = {report['lambda_block']} for the blocks and "
        f"λ_r = {report['lambda_row']} for the rows."
    )
    picture = draw(records, Path(records[0][1].config["out"]) / "demo.png")
    console.print(f"Density by block and criterion by candidate: {picture}")
    console.print(f"{time.perf_counter() - start:.0f} s in all.")


def table(records: Sequence[tuple[str, Record]]) -> Table:
    """Return perplexity, sparsity achieved and seconds of each run, the dense model first."""
    first = records[0][1]
    task = next(iter(first.metrics))
    title = f"{first.config['model']['name']}, Wanda, perplexity on {first.data[task]['source']}"
    shown = Table(title=title)
    for column in ("top-up", "perplexity", "± stderr", "zeros", "allocate (s)", "prune (s)"):
        shown.add_column(column, justify="left" if column == "top-up" else "right")
    shown.add_row("(dense)", *_figures(first.metrics[task]["dense"]), "0.0000", "", "")
    for name, record in records:
        seconds = record.costs["seconds"]
        shown.add_row(
            name,
            *_figures(record.metrics[task]["pruned"]),
            f"{record.sparsity['overall']:.4f}",
            f"{seconds['allocate']:.1f}",
            f"{seconds['prune']:.1f}",
        )
    return shown


def _figures(metrics: dict[str, Any]) -> tuple[str, str]:
    return f"{metrics['value']:.2f}", f"{metrics['stderr']:.2f}"


def draw(records: Sequence[tuple[str, Record]], path: Path) -> Path:
    """Write a PNG of two panels: density by block of all runs, criterion by candidate of the last.

    Args:
        records: name and record of each run; the last is NeuroAL's.
        path: file to write.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    blocks, candidates = figure.subplots(1, 2)
    for name, record in records:
        densities = record.densities()
        blocks.plot(list(densities), list(densities.values()), "o-", label=name)
    blocks.set(xlabel="block", ylabel="density", title="Density by block", ylim=(0, None))
    _draw_criteria(candidates, records[-1][1].plan["report"])
    for axes in (blocks, candidates):
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _draw_criteria(axes: Axes, report: dict[str, Any]) -> None:
    for step, label in STEPS.items():
        values, criteria = report[f"candidates_{step}"], report[f"criterion_{step}"]
        (line,) = axes.plot(values, criteria, ".-", label=label)
        chosen = report[f"lambda_{step}"]
        lowest = criteria[values.index(chosen)]
        axes.plot(chosen, lowest, "o", ms=9, mfc="none", color=line.get_color())
    axes.set(xlabel="candidate", ylabel="criterion", title="Criterion by candidate (○ chosen)")


if __name__ == "__main__":
    main()
