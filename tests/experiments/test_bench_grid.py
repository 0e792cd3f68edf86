"""`benchmark.py grid`: all workers of a grid are timed, and compared with those of one card."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from bench.tables_parts import grid_rows

from tests.experiments.bench_command import Bench

TINY = ["--shape", "tiny", "--dtype", "float32", "--windows", "2", "--seqlen", "16"]


def test_a_grid_is_timed_on_each_number_of_cards(bench: Bench) -> None:
    counts = ["--cards", "1", "2", "--workers", "1", "--runs", "3", "--warm-up", "0"]
    results = bench("grid", *TINY, *counts)
    assert set(results) == {f"grid-{cards}-tiny-float32-1workers" for cards in (1, 2)}
    for result in results.values():
        assert result["cards"] in (1, 2)
        assert result["runs"] == 3
        assert result["steady_runs"] == 3 - result["cards"]
        assert 0 < result["first_seconds"] < result["seconds"]
        assert 0 < result["steady_seconds"] < result["seconds"]
    one, two = grid_rows(dict(sorted(results.items())))
    assert (one["shown"], one["whole"]) == (None, None)
    assert two["shown"]
    assert two["whole"] > 0


def test_speed_ups_count_runs_while_all_workers_work() -> None:
    device = {"device": "CPU", "workers": 2}
    one = {**device, "cards": 1, "runs": 12, "steady_runs": 10, "steady_seconds": 50.0}
    two = {**device, "cards": 2, "runs": 12, "steady_runs": 8, "steady_seconds": 22.0}
    results = {"grid-1-x-2workers": {**one, "seconds": 70.0}}
    results["grid-2-x-2workers"] = {**two, "seconds": 50.0}
    row = list(grid_rows(results))[1]
    assert row["rate"] == pytest.approx(8 / 22)
    assert row["shown"] == "1.82 (missed)"
    assert row["whole"] == pytest.approx(1.4)
    results["grid-1-x-2workers"]["device"] = "another"
    assert list(grid_rows(results))[1]["shown"] is None


def test_a_grid_needs_more_runs_than_workers(bench: Bench) -> None:
    with pytest.raises(SystemExit, match="--runs must be above the number of workers"):
        bench("grid", "--runs", "2", "--cards", "1")
