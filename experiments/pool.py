"""Do many runs in a few processes that each stay alive: what the studies here are built on."""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What came of one run: its record as a dict, or why it failed."""

    name: str
    record: Mapping[str, Any] | None
    error: str = ""


def run_all(runs: Mapping[str, Sequence[str]], jobs: int, threads: int) -> Iterator[Outcome]:
    """Do `runs` (name → overrides, as for the command ``neuroal``) and yield them as they end.

    Args:
        runs: all of them; each must have an ``out`` of its own choice.
        jobs: processes.
        threads: of each process on the CPU.
    """
    if jobs == 1:
        _begin(threads)
        for name, overrides in runs.items():
            yield _do(name, list(overrides))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool:
        waiting = [pool.submit(_do, name, list(overrides)) for name, overrides in runs.items()]
        for done in as_completed(waiting):
            yield done.result()


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _do(name: str, overrides: list[str]) -> Outcome:
    from neuroal.cli import composed
    from neuroal.run import run
    from neuroal.tracking import QuietProgress

    begin = time.perf_counter()
    try:
        record, _ = run(composed(overrides), QuietProgress())
    except Exception as error:  # one run that fails must not cost the others
        return Outcome(name, None, f"{type(error).__name__}: {error}".splitlines()[0])
    found = record.to_dict()
    found["wall"] = time.perf_counter() - begin
    return Outcome(name, found)


def out_of(folder: Path, name: str) -> str:
    """Folder for the records of run `name`."""
    return str(folder / re.sub(r"\W+", "_", name))
