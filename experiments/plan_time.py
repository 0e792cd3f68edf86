"""Compare the time that ``neuroal-grid plan --measure`` estimates with that of the run.

    python experiments/plan_time.py --topups uniform,neuroal model=zoo/llama task.limit=8

The arguments are overrides of ``experiment=quick`` that leave one run for each top-up. Every case
has an empty folder of records and an empty cache of rates, and each command is a process of its
own, as for a user. Prints one table last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = ["experiment=quick", "pruner=wanda", "refine=none", "sparsity=s70"]
STAGES = ("load", "calibrate", "evaluate dense", "allocate", "prune", "evaluate")


@dataclass(frozen=True)
class Case:
    """Seconds of one run.

    Attributes:
        measured: estimate of ``plan --measure``.
        planned: estimate of the next ``plan``, without ``--measure``.
        measuring: what ``plan --measure`` took.
        taken: what ``run`` took, in all.
        stages: what the stages of the run took.
    """

    name: str
    measured: float
    planned: float
    measuring: float
    taken: float
    stages: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topups", default="uniform,neuroal,fisher,marginal")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    cases = [case(topup, options.overrides) for topup in options.topups.split(",")]
    print(table(cases))


def case(topup: str, overrides: Sequence[str]) -> Case:
    """Plan and do the run of one top-up."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        arguments = [*DEFAULT, f"topup={topup}", *overrides, f"out={out}"]
        begin = time.perf_counter()
        measured = _seconds(_grid("plan", folder, "--measure", "--json", *arguments))
        measuring = time.perf_counter() - begin
        planned = _seconds(_grid("plan", folder, "--json", *arguments))
        begin = time.perf_counter()
        _grid("run", folder, *arguments)
        taken = time.perf_counter() - begin
        (record,) = out.glob("*.json")
        stages = json.loads(record.read_text())["costs"]["seconds"]
    name = " ".join([topup, *overrides])
    print(f"{name}: estimated {measured:.1f} s, took {sum(stages.values()):.1f} s", flush=True)
    return Case(name, measured, planned, measuring, taken, stages)


def _grid(action: str, cache: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "neuroal.grid", action, *arguments]
    environment = {**os.environ, "NEUROAL_CACHE": cache}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout) if "--json" in arguments else None


def _seconds(content: Any) -> float:
    if content["left"]["runs"] != 1:
        raise SystemExit(f"the overrides leave {content['left']['runs']} runs; leave one")
    return float(content["left"]["seconds"])


def table(cases: Sequence[Case]) -> str:
    """Return the cases as Markdown: the estimates, the time of the stages, and their ratio."""
    head = (
        "run",
        "measured (s)",
        "planned (s)",
        "took (s)",
        "ratio",
        "measuring (s)",
        "process (s)",
    )
    rows = [[*head, *STAGES], ["---", *["---:"] * (len(head) + len(STAGES) - 1)]]
    for one in cases:
        taken = sum(one.stages.values())
        numbers = (one.measured, one.planned, taken)
        stages = [f"{one.stages.get(stage, 0.0):.1f}" for stage in STAGES]
        ratio = f"{one.measured / taken:.2f}"
        more = [ratio, f"{one.measuring:.1f}", f"{one.taken:.1f}"]
        rows.append([one.name, *(f"{number:.1f}" for number in numbers), *more, *stages])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
