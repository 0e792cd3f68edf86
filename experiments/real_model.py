"""A real model on this machine: dense, Wanda at 60 % with uniform and with NeuroAL.

    python experiments/real_model.py data.root=../shared/data

SmolLM2-135M-Instruct (`make smollm2` installs it) is calibrated on rows of C4 (32 windows of 512
tokens for pruning, 8 for the search) and measured on the first 64 windows of WikiText-2. The table
is printed and written to `results/smollm2-DEVICE.md`.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from neuroal.cli import composed
from neuroal.records.schema import Record
from neuroal.run import run

ROOT = Path(__file__).resolve().parents[1]
TASK = "wikitext2"
RUN = [
    "model=smollm2-135m-instruct-q4",
    "pruner=wanda",
    "sparsity=s60",
    "calibration=c4_sample",
    "calibration.windows=32",
    "calibration.seqlen=512",
    f"task.names=[{TASK}]",
    "task.seqlen=512",
    "task.limit=64",
]


def main() -> None:
    overrides = sys.argv[1:]
    records = {}
    for topup in ("uniform", "neuroal"):
        records[topup], path = run(composed([*RUN, f"topup={topup}", *overrides]))
        print(f"{topup}: {path}")
    command = " ".join(["python experiments/real_model.py", *overrides])
    text = "\n".join(["# A real model", "", f"`{command}`", "", *lines(records), ""])
    print(text)
    kind = records["uniform"].environment["device"].partition(",")[0].lower().replace(" ", "-")
    target = ROOT / "results" / f"smollm2-{kind}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)


def lines(records: dict[str, Record]) -> list[str]:
    """What was run, the perplexities, and what each stage took."""
    first = records["uniform"]
    figures = first.metrics[TASK]["dense"]
    shown = [
        f"One run each is `neuroal {' '.join(RUN)} topup=uniform` (or `neuroal`): "
        f"{first.config['model']['name']}; calibration: {first.data['calibration']['source']}; "
        f"perplexity on {first.data[TASK]['source']}, the first {figures['windows']} windows.",
        "",
        "| top-up | perplexity | ± stderr | zeros | allocate (s) | prune (s) | whole run (s) |",
        "|---|---|---|---|---|---|---|",
        f"| (dense) | {figures['value']:.2f} | {figures['stderr']:.2f} | 0 | | | |",
    ]
    for topup, record in records.items():
        seconds, figures = record.costs["seconds"], record.metrics[TASK]["pruned"]
        shown.append(
            f"| {topup} | {figures['value']:.2f} | {figures['stderr']:.2f} "
            f"| {record.sparsity['overall']:.4f} | {seconds['allocate']:.1f} "
            f"| {seconds['prune']:.1f} | {sum(seconds.values()):.0f} |"
        )
    report, where = records["neuroal"].plan["report"], first.environment
    versions = ", ".join(f"{name} {found}" for name, found in where["packages"].items())
    return [
        *shown,
        "",
        f"NeuroAL chose λ = {report['lambda_block']} and λ_r = {report['lambda_row']}. "
        f"On {where['device']}; {versions}; {date.today()}.",
    ]


if __name__ == "__main__":
    main()
