"""Results of runs: printed one by one, and as one table at the end of a multirun."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from neuroal.files.atomic import finite


@dataclass(frozen=True)
class Result:
    """What a command has to print.

    Attributes:
        content: the result in JSON types.
        show: prints the result as text.
        in_table: whether the table of a multirun shows it.
    """

    content: Any
    show: Callable[[], None]
    in_table: bool = True


class Jobs:
    """Results of the jobs of a multirun, from all processes of this machine.

    A job writes its result to a file of a temporary folder, because launchers run jobs in processes
    of their own. Jobs on other machines are missing.
    """

    def __enter__(self) -> Jobs:
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="neuroal-"))
        self._folder = Path(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        self._stack.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder}

    def add(self, number: int, overrides: Sequence[str], content: Mapping[str, Any]) -> None:
        """Add the result of job `number`."""
        if self._folder.is_dir():
            text = json.dumps(finite({"number": number, "overrides": list(overrides), **content}))
            (self._folder / f"{number:08}.json").write_text(text, encoding="utf-8")

    def table(self) -> str:
        """Return a table with one line per job; empty for fewer than two jobs."""
        jobs = [json.loads(path.read_text("utf-8")) for path in sorted(self._folder.iterdir())]
        return jobs_table(jobs) if len(jobs) > 1 else ""


def jobs_table(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of `jobs`: the overrides in which they differ, and their results."""
    everywhere = set.intersection(*(set(job["overrides"]) for job in jobs))
    tasks = list(dict.fromkeys(task for job in jobs for task in job.get("tasks", {})))
    rows = [["job", "overrides", *tasks, "zeros", "seconds", "record"]]
    for job in jobs:
        own = [text for text in job["overrides"] if text not in everywhere]
        figures = [_figures(job.get("tasks", {}).get(task)) for task in tasks]
        if "reason" in job:
            end = ["", "", f"failed: {job['reason']}"]
        else:
            end = [f"{job['zeros']:.4f}", f"{job['seconds']:.1f}", job["record"]]
        rows.append([str(job["number"]), " ".join(own), *figures, *end])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _figures(entry: Mapping[str, Any] | None) -> str:
    return "" if entry is None else f"{_number(entry['dense'])} → {_number(entry['pruned'])}"


def _number(value: float | None) -> str:
    return "∞" if value is None else f"{value:.4g}"
