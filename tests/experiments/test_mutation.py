"""`experiments/mutants.py`: small changes of code, and the tests that are run on them."""

from __future__ import annotations

import ast
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from mutants import KILLED, SURVIVED, killed_at_first, page_of  # noqa: E402
from mutation.coverage_map import CoverageMap  # noqa: E402
from mutation.execution import ENDED, Job, run_jobs  # noqa: E402
from mutation.operators import mutants_of  # noqa: E402

CODE = '''"""A module."""
from dataclasses import dataclass

LIMIT: float = 0.5


@dataclass(frozen=True)
class Rounded:
    """A class with 1 number in its docstring."""

    def total(self, share: float, numel: int | None = None) -> int:
        if numel is None and share < LIMIT:  # ≥ 0
            raise ValueError(f"{share + 1} is below {LIMIT - 1}")
        self.progress.advance(share + 2)
        self.last = share
        return int(
            share * 3 + 0.5
        )
'''


def changes(code: str) -> list[str]:
    return [mutant.change.partition(": ")[2] for mutant in mutants_of("module.py", code)]


def test_numbers_comparisons_summands_and_statements_change() -> None:
    assert changes(CODE) == [
        "0.5 → (1.5)",
        "numel is None → (numel is not None)",
        "numel is None and share < LIMIT → (numel is None or share < LIMIT)",
        "numel is None and share < LIMIT → (numel is None)",
        "share < LIMIT → (share <= LIMIT)",
        "self.last = share → pass",
        "share * 3 → (share / 3)",
        "share * 3 → (share)",
        "share * 3 + 0.5 → (share * 3 - 0.5)",
        "share * 3 + 0.5 → (share * 3)",
        "3 → (4)",
        "0.5 → (1.5)",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        'raise ValueError("a" + text, 1 + x)',
        'y = f"{x + 1}"',
        "step.advance(1 + x)",
        "batch = batch + 1",
        "y: Literal[1]",
        "assert x > 1",
        "y = zip(a, b, strict=True)",
        'y = text + "a"',
        "if x.is_cuda:\n    pass",
    ],
)
def test_messages_checks_progress_batches_and_gpus_are_not_changed(statement: str) -> None:
    assert changes(statement) == []


def test_every_mutant_of_the_package_is_a_module_of_its_own() -> None:
    for path in (ROOT / "neuroal" / "sparsity").glob("*.py"):
        source = path.read_text()
        mutants = mutants_of(str(path), source)
        texts = {mutant.apply(source) for mutant in mutants}
        assert len(texts) == len(mutants)
        assert source not in texts
        for text in texts:
            ast.parse(text)


def test_the_name_of_a_mutant_does_not_depend_on_the_lines_above() -> None:
    names = [mutant.key for mutant in mutants_of("module.py", CODE)]
    assert names == [mutant.key for mutant in mutants_of("module.py", "# comment\n\n" + CODE)]
    assert len(set(names)) == len(names)


def test_the_nearest_and_fastest_tests_of_a_line_come_first() -> None:
    near, slow, far = "tests/sparsity/a.py::near", "tests/sparsity/a.py::slow", "tests/b.py::far"
    lines = {"1": [""], "3": [slow, near, far], "4": [far]}
    runs = CoverageMap({near: 2.0, slow: 9.0, far: 1.0}, {"neuroal/sparsity/x.py": lines})
    assert runs.covering("neuroal/sparsity/x.py", (3, 3), 100) == [near, far, slow]
    assert runs.covering("neuroal/sparsity/x.py", (3, 3), 3) == [near, far]
    assert runs.covering("neuroal/sparsity/x.py", (4, 5), 100) == [far]
    assert runs.covering("neuroal/sparsity/x.py", (1, 1), 100) == [near, far, slow]
    assert runs.covering("neuroal/sparsity/x.py", (9, 9), 100) == []


def test_definitions_are_also_tested_by_the_file_that_mirrors_the_module() -> None:
    mirror, other = "tests/sparsity/test_x.py::a", "tests/sparsity/test_y.py::b"
    runs = CoverageMap({mirror: 1.0, other: 1.0}, {"neuroal/sparsity/x.py": {"1": [""], "2": []}})
    assert runs.covering("neuroal/sparsity/x.py", (1, 1), 100) == [mirror]
    assert runs.covering("neuroal/sparsity/x.py", (2, 2), 100) == []


def wait_without_end() -> int:
    time.sleep(600)
    return 0


def crash() -> int:
    raise RuntimeError("a mutant")


@pytest.mark.parametrize(("work", "code"), [(int, 0), (crash, 3), (wait_without_end, ENDED)])
def test_a_job_ends_and_leaves_the_module_as_it_was(
    tmp_path: Path, work: Callable[[], int], code: int
) -> None:
    (tmp_path / "module.py").write_text("x = 1\n")
    job = Job("name", work, 0.05, "module.py", "x = 1\n", "x = 2\n")
    results = list(run_jobs([job], [tmp_path], tmp_path))
    assert [result[:2] for result in results] == [(job, code)]
    assert (tmp_path / "module.py").read_text() == "x = 1\n"


def test_a_job_sees_the_changed_module(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n")
    read = partial(lambda: int(Path("module.py").read_text() == "x = 2\n"))
    job = Job("name", read, 60, "module.py", "x = 1\n", "x = 2\n")
    assert [code for _, code, _ in run_jobs([job], [tmp_path], tmp_path)] == [1]


def test_the_page_has_the_share_killed_at_first_and_with_further_tests(tmp_path: Path) -> None:
    rows = [("a", KILLED), ("b", SURVIVED), ("c", SURVIVED), ("b", KILLED), ("other", KILLED)]
    lines = [json.dumps({"id": name, "outcome": outcome}) for name, outcome in rows]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    first = killed_at_first(tmp_path, {"a", "b", "c"})
    mutants = mutants_of("module.py", "x = a | 3\ny = 1\n")[:3]
    page = page_of(
        dict(zip(mutants, [SURVIVED, KILLED, KILLED], strict=True)), first, "3 of 4", "m"
    )
    assert "3 of 4 were run: 1 were killed (33.3 %) at first, and 2 (66.7 %) after" in page
    assert "| module.py | `x = a \\| 3` | `4: a \\| 3 → (a & 3)` |  |" in page
    assert page.count("module.py") == 1
