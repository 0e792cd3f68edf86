"""What an iteration of equal marginals costs at the size of LLaMA-7B (random weights).

    python experiments/marginal_speed.py --dtype float16 --iterations 3 3

Times the ranking pass and some iterations of `topup=marginal`, projects them to 25 + 60, and
prints one line of JSON, which `--append` also adds to results/benchmark/marginal.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch
from bench.common import DEVICE, SHAPES, random_llama, random_tokens

from neuroal.pruners.budget import Rules
from neuroal.pruners.wanda import Wanda
from neuroal.records.identity import environment
from neuroal.topups.base import AllocationContext
from neuroal.topups.marginal import EqualMarginals
from neuroal.tracking import QuietProgress, Step

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmark" / "marginal.jsonl"
ITERATIONS = (25, 60)


class Clock(QuietProgress):
    """Notes when each unit of each stage was done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[tuple[str, list[float]]] = []

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        laps = [self.now()]
        self.laps.append((name, laps))
        clock = self

        class Lap:
            def advance(self, count: int = 1, **info: object) -> None:
                laps.append(clock.now())

        yield Lap()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--iterations", nargs=2, type=int, default=(3, 3))
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument("--append", action="store_true")
    arguments = parser.parse_args()
    device = DEVICE
    subject = random_llama(arguments.shape, arguments.dtype)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    clock = Clock(device)
    context = AllocationContext(subject, Wanda(), 0.7, Rules.EXACT, tokens, arguments.batch, clock)
    linear, row = arguments.iterations
    topup = EqualMarginals(linear_iterations=linear, row_iterations=row)
    warnings.simplefilter("ignore")
    begin = clock.now()
    report = topup.allocate(context).report
    total = clock.now() - begin
    laps = {name.split(",")[0]: marks for name, marks in clock.laps}
    # The first iteration of a stage warms up; the rest are what the others will take.
    each = {
        name: (marks[-1] - marks[1]) / (len(marks) - 2)
        for name, marks in laps.items()
        if name.startswith("equal")
    }
    iterations = sum(marks[-1] - marks[0] for n, marks in laps.items() if n.startswith("equal"))
    projected = (
        total
        - iterations
        + sum(count * seconds for count, seconds in zip(ITERATIONS, each.values(), strict=True))
    )
    found = {
        "shape": arguments.shape,
        "dtype": arguments.dtype,
        "windows": f"{arguments.windows} x {arguments.seqlen}",
        "batch": arguments.batch,
        "seconds_an_iteration": {name: round(value, 3) for name, value in each.items()},
        "seconds_before_iterations": round(total - iterations, 2),
        "projected_25_60": round(projected, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if device.type == "cuda"
        else None,
        "divergence": [report["divergence_linear"][0], report["divergence_row"][-1]],
        "device": environment(device)["device"],
        "torch": torch.__version__,
        "date": str(date.today()),
    }
    print(json.dumps(found))
    if arguments.append:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
