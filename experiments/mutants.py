"""Change the code of the methods in small ways, and count the changes that no test notices.

    python experiments/mutants.py
    python experiments/mutants.py --sample 40 --seed 1 --page sample.md

A mutant is one change of one expression or statement (`mutation/operators.py`): `<` becomes `<=`, a
summand is dropped, a number grows by 1. The mutants of a seeded sample are run one by one: each by
the tests that run its line, the nearest and fastest first, until one fails. Messages, progress,
times, batching, memory and GPU code are not changed.

Which test runs which line is measured first. Everything is kept in `--out`, so that an interrupted
command continues. After a change of tests, killed mutants stay killed, and only survivors are run
again. The page has the share of killed mutants at first and now, and lists survivors with the
reasons in experiments/mutation/reasons.yaml. The exit code is 1 if fewer than 85 % are killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import yaml
from mutation.coverage_map import CoverageMap, measure
from mutation.execution import Job, copy_tree, run_jobs, run_tests, warm_up
from mutation.operators import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
REASONS = ROOT / "experiments" / "mutation" / "reasons.yaml"
FOLDERS = ("sparsity", "pruners", "topups", "search", "gradients", "refine")
OMITTED = {"batches.py", "faults.py", "cuda_graph.py"}
"""Modules of batching, of messages, and for GPUs."""
TESTS = (
    *(f"tests/{folder}" for folder in (*FOLDERS, "kernels")),
    *(f"tests/execution/test_{name}.py" for name in ("joined", "oom", "probe", "runner")),
    *("tests/test_api.py", "tests/test_versions.py", "tests/test_reference_parity.py"),
    "tests/config/test_defaults.py",
)
LEAST = 0.85
"""Share of the mutants that must be killed."""
KILLED, SURVIVED, ERROR = "killed", "survived", "error"
TEST_SECONDS = 30.0
"""Tests of a mutant are limited to as many seconds, as measured without a mutant."""


def main() -> int:
    options = _parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources = {path: (ROOT / path).read_text() for path in _modules()}
    mutants = [mutant for path in sources for mutant in mutants_of(path, sources[path])]
    chosen = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Path(folder) / f"tree{number}" for number in range(options.workers)]
        for tree in trees:
            copy_tree(ROOT, tree)
        coverage_map = _coverage_map(options.out, trees)
        outcomes = _outcomes(chosen, sources, coverage_map, options.out, trees)
    first = killed_at_first(options.out, {_id(mutant, sources) for mutant in chosen})
    title = f"{len(chosen)} of {len(mutants):,} mutants (seed {options.seed})"
    page = page_of(outcomes, first, title, _machine(options.workers))
    options.page.write_text(page)
    print(page)
    killed = sum(outcome == KILLED for outcome in outcomes.values())
    return 0 if killed >= LEAST * len(outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=600, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--workers", type=int, default=2, help="mutants run at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutants")
    parser.add_argument("--page", type=Path, default=ROOT / "results" / "mutants.md")
    return parser


def _modules() -> list[str]:
    paths = [path for folder in FOLDERS for path in (ROOT / "neuroal" / folder).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in paths if path.name not in OMITTED)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _id(mutant: Mutant, sources: dict[str, str]) -> str:
    return _digest(sources[mutant.path], repr(mutant))


def _digest_of_tests(*files: str) -> str:
    """Return a digest of all that decides which lines `files` run; without any: all test files."""
    paths = sorted(path for part in ("neuroal", "tests") for path in (ROOT / part).rglob("*.py"))
    shared = [path for path in paths if not files or not path.name.startswith("test_")]
    return _digest(*(path.read_text() for path in [*shared, *(ROOT / name for name in files)]))


def _coverage_map(out: Path, trees: list[Path]) -> CoverageMap:
    """Measure every test file that was not measured as it is now; return the map of all."""
    folder = out / "map"
    folder.mkdir(exist_ok=True)
    files = {}
    for test in TESTS:
        for path in [ROOT / test] if test.endswith(".py") else (ROOT / test).rglob("test_*.py"):
            name = str(path.relative_to(ROOT))
            stem = name.removesuffix(".py").replace("/", "-")
            files[name] = folder / f"{stem}-{_digest_of_tests(name)}.json"
    folders = [f"neuroal/{name}" for name in FOLDERS]
    jobs = [
        Job(name, partial(_measure, name, folders, path), 1200)
        for name, path in files.items()
        if not path.exists()
    ]
    for number, (job, code, seconds) in enumerate(run_jobs(jobs, trees, folder), 1):
        print(f"[{number}/{len(jobs)}] {job.name}: {seconds:.0f} s", flush=True)
        if code:
            raise SystemExit(f"{job.name}: cannot be measured; its log is in {folder}")
    coverage_map = CoverageMap()
    for path in files.values():
        coverage_map.add(path)
    return coverage_map


def _measure(test: str, folders: list[str], path: Path) -> int:
    measure([test], folders, path)
    return 0


def _outcomes(
    mutants: list[Mutant],
    sources: dict[str, str],
    coverage_map: CoverageMap,
    out: Path,
    trees: list[Path],
) -> dict[Mutant, str]:
    """Return the outcome of every mutant; run those without a valid one in results.jsonl."""
    results, tests = out / "results.jsonl", _digest_of_tests()
    outcomes: dict[str, str] = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        row = json.loads(line)
        if row["outcome"] == KILLED or row["tests"] == tests:
            outcomes[row["id"]] = row["outcome"]
    ids = {mutant: _id(mutant, sources) for mutant in mutants}
    names = {name: mutant for mutant, name in ids.items() if name not in outcomes}

    def jobs() -> Iterator[Job]:
        for name, mutant in names.items():
            chosen = coverage_map.covering(mutant.path, mutant.lines, TEST_SECONDS)
            limit = 30 + 4 * sum(coverage_map.seconds[test] for test in chosen)
            work = partial(run_tests, chosen) if chosen else int
            source = sources[mutant.path]
            yield Job(name, work, limit, mutant.path, source, mutant.apply(source))

    begin = time.monotonic()
    with results.open("a") as file:
        for number, (job, code, seconds) in enumerate(run_jobs(jobs(), trees, out), 1):
            # pytest ends with 2 if a test file cannot be imported, and with 0 if all tests pass.
            outcome = {0: SURVIVED, 1: KILLED, 2: KILLED, -1: KILLED}.get(code, ERROR)
            outcomes[job.name] = outcome
            row = {"id": job.name, "outcome": outcome, "tests": tests, "seconds": round(seconds, 1)}
            file.write(json.dumps({**row, "mutant": names[job.name].key, "code": code}) + "\n")
            file.flush()
            left = (time.monotonic() - begin) / number * (len(names) - number) / 60
            print(
                f"[{number}/{len(names)}, {left:.0f} min left] {outcome} in {seconds:.0f} s: "
                f"{names[job.name].key}",
                flush=True,
            )
    return {mutant: outcomes[name] for mutant, name in ids.items()}


def killed_at_first(out: Path, ids: set[str]) -> int:
    """Return how many of the mutants `ids` were killed when they were first run."""
    first: dict[str, str] = {}
    for line in (out / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        first.setdefault(row["id"], row["outcome"])
    return sum(first[name] == KILLED for name in ids)


def _machine(workers: int) -> str:
    day, command = datetime.now(UTC).date().isoformat(), ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"{day}, commit {commit.strip()}, {workers} workers on {os.cpu_count()} cores"


def page_of(outcomes: dict[Mutant, str], first: int, title: str, machine: str) -> str:
    """Return the page of the results: the share of killed mutants, and the survivors.

    Args:
        outcomes: outcome of every mutant.
        first: number of mutants that were killed when they were first run.
        title: which mutants these are.
        machine: when and where they were run.
    """
    reasons = yaml.safe_load(REASONS.read_text()) or {}
    killed, total = sum(outcome == KILLED for outcome in outcomes.values()), len(outcomes)
    share = f"{first} were killed ({100 * first / total:.1f} %)"
    if killed > first:
        share += f" at first, and {killed} ({100 * killed / total:.1f} %) after tests were added"
    lines = [
        "# Mutation testing",
        "",
        "Which small changes of the methods no test notices. A mutant is one change of one",
        "expression or statement, and is killed if a test that runs its line fails. Statements on",
        "progress, times, batching, memory and GPUs are left out where their names show it.",
        "",
        "```sh",
        "make mutants",
        "```",
        "",
        f"{title} were run: {share}.",
        "",
        f"{machine}.",
        "",
        "| survivor | line | change | reason |",
        "|---|---|---|---|",
    ]
    for mutant in sorted(outcomes, key=lambda mutant: (mutant.path, mutant.begin)):
        if outcomes[mutant] != KILLED:
            reason = reasons.get(mutant.key, "" if outcomes[mutant] == SURVIVED else "error")
            cells = (
                f"`{text.replace('|', chr(92) + '|')}`" for text in (mutant.code, mutant.change)
            )
            lines.append(f"| {mutant.path} | {' | '.join(cells)} | {reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
