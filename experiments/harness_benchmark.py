"""How fast the harness is: planning and status of 10,000 runs, a run's cost beside its work.

    python experiments/harness_benchmark.py --write

Writes `results/harness.md`. The records are made up, with a plan for every row of a 3 M model, so
that nothing small is measured where real records are large.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from neuroal.grid.planning import PlannedRun
from neuroal.records.schema import Record
from neuroal.records.summary import STATE, Summary, summary_path
from neuroal.validation import ZERO_SHOT_SETS

ROOT = Path(__file__).parents[1]
RUNS, LIMIT = 10_000, 5.0
OVERHEAD = 3.0
"""Seconds that a run may take beside its stages, imports not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--write", action="store_true", help="write results/harness.md")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    try:
        rows = measure(folder, given.runs)
        beside = overhead(folder / "one")
    finally:
        shutil.rmtree(folder)
    text = page(rows, given.runs, beside)
    print(text)
    if given.write:
        (ROOT / "results" / "harness.md").write_text(text + "\n")
    sys.exit(beside > OVERHEAD or any(spent > LIMIT for spent, _ in rows.values()))


def overhead(folder: Path) -> float:
    """Seconds that a run of an embedded model takes beside the stages of its record."""
    from neuroal.cli import composed
    from neuroal.run import run
    from neuroal.tracking import QuietProgress

    overrides = ["model=zoo/llama", "topup=owl", "calibration.windows=8", "task.limit=8"]
    begin = time.perf_counter()
    record, _ = run(composed([*overrides, f"out={folder}"]), QuietProgress())
    return time.perf_counter() - begin - sum(record.costs["seconds"].values())


def grid(folder: Path, runs: int) -> list[str]:
    """The zoo's grid with so many seeds that it has `runs` runs at least."""
    seeds = -(-runs // (4 * 3 * 3 * 8))
    return ["+experiment=zoo", f"seed=range({seeds})", f"out={folder}"]


def measure(folder: Path, count: int) -> dict[str, tuple[float, float]]:
    """What was timed → seconds by the clock and of the processor, imports included."""
    from neuroal.cli_grid import planned

    overrides = grid(folder, count)
    _, runs = planned(overrides)
    fill(folder, runs[: len(runs) // 2])
    rows = {}
    for action in ("plan", "status"):
        begin, before = time.perf_counter(), _children()
        command = [sys.executable, "-m", "neuroal.grid", action, *overrides]
        text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        spent = time.perf_counter() - begin
        rows[f"neuroal-grid {action}"] = (spent, _children() - before)
        assert f"{len(runs)} runs: {len(runs) // 2} done" in text, text
    return rows


def _children() -> float:
    """Processor seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fill(folder: Path, runs: list[PlannedRun]) -> None:
    """Records of `runs`, as large as those of the embedded models."""
    (folder / STATE).mkdir()
    rows = [0.123456789 + row / 1e6 for row in range(400)]
    plan = {"sparsity": 0.7, "ratios": {f"{b}.linear{i}": rows for b in range(8) for i in range(7)}}
    figures = {"value": 12.3, "stderr": 0.1, "windows": 10}
    for planned in runs:
        metrics = {
            name: {
                "kind": "perplexity",
                "limit": None,
                "seqlen": None if name in ZERO_SHOT_SETS else 512,
                "dense": figures,
                "pruned": figures,
            }
            for name in planned.run.tasks
        }
        costs = {"seconds": {"prune": 1.0}, "peak_bytes": {"prune": 10**9}}
        record = Record(planned.identity, {}, {}, {}, costs, plan, {}, {}, metrics, context=512)
        path = folder / f"{planned.identity}.json"
        path.write_text(json.dumps(record.to_dict()))
        known = vars(Summary.of(metrics, 512, costs))
        summary_path(path).write_text(json.dumps({"size": path.stat().st_size, **known}))


def page(rows: dict[str, tuple[float, float]], count: int, beside: float) -> str:
    table = "\n".join(
        f"| `{name}` | {spent:.1f} | {used:.1f} | {LIMIT:.0f} |"
        for name, (spent, used) in rows.items()
    )
    return (
        f"# Speed of the harness\n\n{count:,} runs, half of them done; whole commands, imports "
        f"included; Python {platform.python_version()}, {platform.machine()}.\n\n"
        f"| command | seconds | of the processor | at most |\n|---|---|---|---|\n{table}\n\n"
        f"A run (zoo/llama, OWL, 8 windows) takes {beside:.2f} s beside the stages of its record, "
        f"imports not counted; at most {OVERHEAD:.0f} s are allowed."
    )


if __name__ == "__main__":
    main()
