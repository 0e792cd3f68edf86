"""The main job on the embedded model: dense, then Wanda at 70 % with uniform and with NeuroAL.

python experiments/demo.py
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from demo_picture import draw
from rich.console import Console
from rich.table import Table

from neuroal.cli import composed
from neuroal.records.schema import Record
from neuroal.run import run

RUN = ["model=zoo/llama", "pruner=wanda", "sparsity=s70", "calibration.windows=32", "task.limit=64"]


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


def table(records: list[tuple[str, Record]]) -> Table:
    """Perplexity, sparsity achieved and seconds of each run, the dense model first."""
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


if __name__ == "__main__":
    main()
