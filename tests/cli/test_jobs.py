"""The table at the end of a multirun."""

from __future__ import annotations

import copy
import json
import pickle

from neuroal.cli.jobs import Jobs, jobs_table

DONE = {"zeros": 0.7, "seconds": 2.04, "record": "runs/a.json"}


def test_the_table_shows_what_differs_and_why_a_job_failed() -> None:
    with Jobs() as jobs:
        jobs.add(10, ["out=runs", "seed=10"], {"reason": "no memory"})
        ppl = {"dense": 20.0, "pruned": float("inf")}
        jobs.add(2, ["out=runs", "seed=2"], {**DONE, "tasks": {"c4": ppl}})
        lines = [line.split() for line in jobs.table().splitlines()]
    assert lines == [
        ["job", "overrides", "c4", "zeros", "seconds", "record"],
        ["2", "seed=2", "20", "→", "∞", "0.7000", "2.0", "runs/a.json"],
        ["10", "seed=10", "failed:", "no", "memory"],
    ]


def test_a_job_of_another_process_adds_its_result() -> None:
    with Jobs() as jobs:
        for number in range(2):
            pickle.loads(pickle.dumps(jobs)).add(number, [f"seed={number}"], DONE)
        assert jobs.table().count("runs/a.json") == 2


def test_a_single_run_has_no_table() -> None:
    with Jobs() as jobs:
        jobs.add(0, ["seed=1"], DONE)
        assert jobs.table() == ""


def test_a_job_on_a_machine_without_the_folder_is_missing() -> None:
    with Jobs() as jobs:
        remote = copy.copy(jobs)
    remote.add(0, ["seed=1"], DONE)  # the folder is gone
    assert not remote._folder.exists()


def test_equal_overrides_leave_an_empty_column() -> None:
    table = jobs_table([{"number": n, "overrides": ["a=1"], **DONE} for n in (0, 1)])
    assert table.splitlines()[1].split() == ["0", "0.7000", "2.0", "runs/a.json"]
    assert json.dumps(table)
