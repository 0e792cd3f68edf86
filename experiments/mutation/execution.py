"""Run tests on mutants, each in a fork of a process that has imported PyTorch."""

from __future__ import annotations

import compileall
import contextlib
import importlib
import os
import py_compile
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mutation.coverage_map import OPTIONS

PARTS = ("neuroal", "conf", "hydra_plugins", "tests", "experiments", "pyproject.toml")
"""The parts of the repository that tests read."""
HEAVY = (
    *("torch", "torch.func", "torch._dynamo", "transformers", "hypothesis", "pandas", "hydra"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("accelerate", "datasets", "safetensors.torch", "scipy.stats", "hypothesis.extra.numpy"),
)
MEMORY = 24 * 2**30
"""Limit of a process's address space, in bytes: a mutant may allocate without end."""
ENDED = -1
"""Exit code of a job that a signal or the time limit ended."""


def copy_tree(root: Path, tree: Path) -> None:
    """Copy what tests read, with compiled modules that are checked by their source."""
    ignore = shutil.ignore_patterns("__pycache__", "runs")
    for part in PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, tree / part, ignore=ignore)
        else:
            shutil.copy(root / part, tree / part)
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(tree / "neuroal", quiet=1, invalidation_mode=checked)


def warm_up() -> None:
    """Import what all tests need; a mutant's process then starts with it."""
    import hypothesis

    for name in HEAVY:
        importlib.import_module(name)
    hypothesis.settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@dataclass(frozen=True)
class Job:
    """Work for a fork.

    Attributes:
        name: name of the job, and of its log.
        work: what the fork does in its copy of the repository; its result is the exit code.
        seconds: limit of the processor's time; the job may take ten times as long by the clock.
        path: a module that is replaced meanwhile.
        original, text: its text, and that of its replacement.
    """

    name: str
    work: Callable[[], int]
    seconds: float
    path: str = ""
    original: str = ""
    text: str = ""


class Child:
    """A job in a fork, in a process group of its own."""

    def __init__(self, job: Job, tree: Path, log: Path) -> None:
        self.job, self.tree, self.begin = job, tree, time.monotonic()
        if job.path:
            (tree / job.path).write_text(job.text)
        self.pid = os.fork()
        if self.pid == 0:
            code = 3
            try:
                _become(tree, log, job.seconds)
                code = job.work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, `ENDED` after a signal or the time limit; None: still running."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        late = time.monotonic() - self.begin > 10 * self.job.seconds
        if pid == 0 and not late:
            return None
        with contextlib.suppress(ProcessLookupError):  # no process of the group is left
            os.killpg(self.pid, signal.SIGKILL)
        if pid == 0:
            os.waitpid(self.pid, 0)
        if self.job.path:
            (self.tree / self.job.path).write_text(self.job.original)
        code = ENDED if pid == 0 else os.waitstatus_to_exitcode(status)
        return max(code, ENDED)


def run_jobs(
    jobs: Iterable[Job], trees: Sequence[Path], logs: Path
) -> Iterator[tuple[Job, int, float]]:
    """Run one job at a time in each of `trees`; yield each with its exit code and seconds."""
    waiting, idle, running = iter(jobs), list(trees), []
    while True:
        while idle and (job := next(waiting, None)) is not None:
            tree = idle.pop()
            running.append(Child(job, tree, logs / f"{tree.name}.txt"))
        if not running:
            return
        time.sleep(0.02)
        for child in list(running):
            if (code := child.poll()) is not None:
                running.remove(child)
                idle.append(child.tree)
                yield child.job, code, time.monotonic() - child.begin


def _become(tree: Path, log: Path, seconds: float) -> None:
    """Turn this fork into a process group of its own in `tree`, with limits and a log."""
    os.setsid()
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))


class Selection:
    """A plugin of pytest that runs chosen tests in a fixed order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.position = {name: number for number, name in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.position]
        items.sort(key=lambda item: self.position[item.nodeid])


def run_tests(tests: Sequence[str]) -> int:
    """Run `tests` until the first failure; return pytest's exit code."""
    files = list(dict.fromkeys(name.split("::")[0] for name in tests))
    return int(pytest.main([*OPTIONS, "-x", "--tb=line", *files], plugins=[Selection(tests)]))
