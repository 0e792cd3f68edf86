"""Planning, status and tables of thousands of runs are fast, and a run has little overhead."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuroal.cli.declared import planned
from neuroal.grid.planning import PlannedRun
from neuroal.records.summary import STATE_FOLDER, Summary, summary_path
from tests.synthetic import record

pytestmark = pytest.mark.slow

SEEDS = 20
RUNS = SEEDS * 4 * 3 * 3 * 8
"""Runs of the grid zoo with `SEEDS` seeds: 5,760."""
ROWS = 100
"""Ratios per linear, so that a record has 70 kB: a quarter of those of an embedded model."""
LIMITS = {
    "neuroal-grid plan": 5.0,
    "neuroal-grid status": 5.0,
    "neuroal-tables paper": 20.0,
}
"""Processor seconds of a whole command and its processes, imports included.

Processor seconds depend less on other processes than wall-clock seconds.
"""
OVERHEAD = 3.0
"""Seconds of a run outside the stages of its record, imports excluded."""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return overrides of a grid in which every second run has a record."""
    folder = tmp_path_factory.mktemp("records")
    seeds = ",".join(map(str, range(SEEDS)))
    overrides = ["+experiment=zoo", f"seed={seeds}", f"out={folder}"]
    _, runs = planned(overrides)
    assert len(runs) == RUNS
    write_records(folder, runs[::2])
    return overrides


def write_records(folder: Path, runs: list[PlannedRun]) -> None:
    """Write a record and its summary for each of `runs`."""
    (folder / STATE_FOLDER).mkdir()
    ratios = {f"{b}.linear{i}": [0.123456789 + i / 1e6] * ROWS for b in range(8) for i in range(7)}
    indented = json.dumps(ratios, indent=1).replace("\n", "\n  ")
    for run in runs:
        drawn = record(seed=run.config.seed, tasks=run.config.task.names, limit=None)
        changes = {
            "identity": run.identity,
            "config": dataclasses.asdict(run.config),
            "context": 512,
            "metrics": {
                task: {**entry, "seqlen": 512 if entry["kind"] == "perplexity" else None}
                for task, entry in drawn.metrics.items()
            },
            "plan": {**drawn.plan, "ratios": None},
        }
        one = dataclasses.replace(drawn, **changes)
        path = folder / f"{one.identity}.json"
        text = json.dumps(one.to_dict(), indent=1, sort_keys=True)
        path.write_text(text.replace('"ratios": null', f'"ratios": {indented}'))
        summary = vars(Summary.of(one.metrics, one.context, one.costs))
        summary_path(path).write_text(json.dumps({"size": path.stat().st_size, **summary}))


@pytest.mark.parametrize("command", LIMITS)
def test_commands_on_thousands_of_runs_stay_within_their_limits(
    command: str, grid: list[str]
) -> None:
    name, action = command.split()
    script = f"main_{name.removeprefix('neuroal-')}"
    code = f"import sys; from neuroal.cli.main import {script} as main; sys.argv[0] = 'x'; main()"
    begin = processor_seconds()
    process = subprocess.run(
        [sys.executable, "-c", code, action, *grid], capture_output=True, text=True
    )
    seconds = processor_seconds() - begin
    assert process.returncode == 0, process.stderr
    if name == "neuroal-grid":
        assert f"{RUNS} runs: {RUNS // 2} done" in process.stdout
    assert seconds <= LIMITS[command]


def processor_seconds() -> float:
    """Return the processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_run_has_little_overhead(tmp_path: Path) -> None:
    from neuroal.cli.main import composed
    from neuroal.run import run
    from neuroal.tracking import QuietProgress

    config = composed(["topup=owl", "calibration.windows=8", "task.limit=8", f"out={tmp_path}"])
    begin = time.perf_counter()
    result, _ = run(config, QuietProgress())
    overhead = time.perf_counter() - begin - sum(result.costs["seconds"].values())
    assert overhead <= OVERHEAD
