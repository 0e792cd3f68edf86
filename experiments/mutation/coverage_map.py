"""Which tests run which line, measured once, and how long they take."""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NO_TEST = ""
"""Context of lines that run while modules are imported."""
DEFINITIONS = (
    *("tests/config/test_defaults.py", "tests/test_versions.py::test_the_numbers"),
    "tests/topups/test_base.py",
)
"""Tests of what classes define, which run no line of them."""
OPTIONS = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"]


@dataclass
class CoverageMap:
    """The passing tests that run each line.

    Attributes:
        seconds: duration of each test, by its name.
        tests: names of the tests that run a line, by module and line number (as text).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, path: Path) -> None:
        """Add the map that `measure` wrote to `path`."""
        data = json.loads(path.read_text())
        self.seconds |= data["seconds"]
        for module, lines in data["tests"].items():
            for line, names in lines.items():
                self.tests[module].setdefault(line, []).extend(names)

    def covering(self, module: str, lines: tuple[int, int], limit: float) -> list[str]:
        """Return the tests that run one of `lines`, the nearest and fastest first.

        If the lines run on import, these are all tests that run the module, those of the file that
        mirrors it, and those of `DEFINITIONS`. The tests of the folder that mirrors the module come
        before others of a third of their duration. Further ones are omitted after `limit` seconds
        in all.
        """
        nearest = module.replace("neuroal/", "tests/").rsplit("/", 1)[0] + "/"
        runs = self.tests.get(module, {})
        names = {name for line in range(lines[0], lines[1] + 1) for name in runs.get(str(line), ())}
        if NO_TEST in names:
            names = {name for line in runs.values() for name in line}
            mirror = f"{nearest}test_{module.rsplit('/', 1)[1]}::"
            names |= {name for name in self.seconds if name.startswith((mirror, *DEFINITIONS))}
        order = sorted(
            sorted(names & self.seconds.keys()),
            key=lambda name: self.seconds[name] * (1 if name.startswith(nearest) else 3),
        )
        chosen, total = [], 0.0
        for name in order:
            total += self.seconds[name]
            if chosen and total > limit:
                break
            chosen.append(name)
        return chosen


class Recorder:
    """A plugin of pytest that attributes lines to tests and records durations."""

    def __init__(self, measurement: Any) -> None:
        self.measurement, self.seconds, self.failed = measurement, defaultdict(float), set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measurement.switch_context(item.nodeid)
        yield
        self.measurement.switch_context(NO_TEST)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)


def measure(tests: Sequence[str], folders: Sequence[str], result: Path) -> None:
    """Run `tests` in the current folder, and write which of them run which line of `folders`.

    Tests that fail or are skipped are omitted.
    """
    import coverage

    root, data_file = Path.cwd(), result.with_suffix(".coverage")
    measurement = coverage.Coverage(
        data_file=str(data_file), source=list(folders), config_file=False
    )
    recorder = Recorder(measurement)
    measurement.start()
    with contextlib.redirect_stdout(result.with_suffix(".txt").open("w")):
        pytest.main([*OPTIONS, *tests], plugins=[recorder])
    measurement.stop()
    data: Any = measurement.get_data()
    seconds = {k: v for k, v in recorder.seconds.items() if k not in recorder.failed}
    runs = {
        os.path.relpath(name, root): data.contexts_by_lineno(name) for name in data.measured_files()
    }
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps({"seconds": seconds, "tests": runs}))
    partial.replace(result)
