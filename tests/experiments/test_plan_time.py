"""`experiments/plan_time.py`: estimates beside the time of the run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import plan_time


def test_a_case_has_both_estimates_and_the_time_of_the_run() -> None:
    overrides = ["model=zoo/llama", "task.names=[builtin]", "task.limit=2", "device=cpu"]
    case = plan_time.case("uniform", overrides)
    assert case.measured == case.planned > 0
    assert case.stages.keys() >= {"load", "calibrate", "prune", "evaluate"}
    *_, row = plan_time.table([case]).splitlines()
    ratio = case.measured / sum(case.stages.values())
    assert row.startswith(f"| uniform {' '.join(overrides)} | {case.measured:.1f} |")
    assert f"| {ratio:.2f} |" in row
    assert 0.1 < ratio < 10
