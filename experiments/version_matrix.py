"""Run the tests with the oldest and the newest supported PyTorch and transformers.

    python experiments/version_matrix.py
    python experiments/version_matrix.py --pairs oldest-oldest --tests tests/sparsity

Each pair (PyTorch-transformers) gets a virtual environment of its own under `--out`. The range is
that of pyproject.toml; all other packages have the versions of constraints.txt as far as the pair
permits. A pair whose log ends with success is not repeated unless the code has changed. The last
output is a table; the exit code is 1 if a pair failed. PyTorch comes from pip's indexes: without a
GPU, `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` saves gigabytes for a pair.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers")
PAIRS = ("oldest-oldest", "newest-newest", "oldest-newest", "newest-oldest")
OMITTED = ("tests/test_prose.py", "tests/test_docs.py", "tests/test_wheel.py")
"""Tests of documents and of packaging, which do not depend on versions."""


def main() -> int:
    options = _parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for pair in options.pairs:
        result = options.out / f"{pair}.json"
        digest = _digest(options.tests)
        if not result.exists() or json.loads(result.read_text())["digest"] != digest:
            row = run_pair(pair, options.out, options.tests)
            result.write_text(json.dumps({**row, "digest": digest}))
        rows.append(json.loads(result.read_text()))
    print("| torch | transformers | tests | minutes |\n|---|---|---|---:|")
    for row in rows:
        minutes = row["seconds"] / 60
        print(f"| {row['torch']} | {row['transformers']} | {row['tests']} | {minutes:.0f} |")
    return 0 if all(row["code"] == 0 for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=PAIRS)
    parser.add_argument("--tests", nargs="+", default=["tests"], help="folders or files")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "versions")
    return parser


def requirement(package: str, end: str) -> str:
    """Return the requirement of the `end` (oldest or newest) of the range in pyproject.toml."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    text = next(line for line in dependencies if re.match(rf"{package}\W", line))
    return text if end == "newest" else f"{package}=={re.findall(r'>=([0-9.]+)', text)[0]}.*"


def constraints(text: str) -> str:
    """Return the constraints without PyTorch, transformers and what only one of them needs."""
    free = re.compile(
        r"(torch|triton|sympy|nvidia.*|cuda.*|transformers|tokenizers|huggingface.hub|hf.xet)=="
    )
    return "".join(line for line in text.splitlines(keepends=True) if not free.match(line))


def run_pair(pair: str, out: Path, tests: list[str]) -> dict[str, object]:
    """Install a pair and run the tests; return versions, pytest's last line and the exit code."""
    venv, log, limits = out / pair, out / f"{pair}.txt", out / f"{pair}-constraints.txt"
    limits.write_text(constraints((ROOT / "constraints.txt").read_text()))
    ends = dict(zip(PACKAGES, pair.split("-"), strict=True))
    pins = [requirement(package, end) for package, end in ends.items()]
    print(f"{pair}: {' '.join(pins)}; the log is {log}", flush=True)
    begin = time.monotonic()
    shutil.rmtree(venv, ignore_errors=True)
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    ignored = [f"--ignore={name}" for name in OMITTED]
    steps = [
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, *pins, "-e", f"{ROOT}[dev]", "-c", str(limits)],
        [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *ignored, *tests],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        for step in steps:
            options = {"stdout": file, "stderr": subprocess.STDOUT}
            code = subprocess.run(
                step, cwd=ROOT, env=environment, check=False, **options
            ).returncode
            if code:
                break
    last = log.read_text().strip().splitlines()[-1:]
    versions = {package: _version(python, package) for package in PACKAGES}
    seconds = time.monotonic() - begin
    return {**versions, "tests": "".join(last), "code": code, "seconds": seconds}


def _version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "not installed"


def _digest(tests: list[str]) -> str:
    paths = [path for part in ("neuroal", "conf", "tests") for path in (ROOT / part).rglob("*.*")]
    files = [path for path in sorted(paths) if path.suffix in {".py", ".yaml"}]
    files += [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    text = "\0".join([*tests, *(path.read_text() for path in files)])
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
