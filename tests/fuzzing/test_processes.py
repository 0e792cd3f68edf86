"""Wrong command lines as real processes: exit code 2 and one line on stderr."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES = (
    *("neuroal =", "neuroal seed=a", "neuroal 'out=a=b'", "neuroal --foo", "neuroal -cd nowhere"),
    *("neuroal 'seed=$(id)'", "neuroal model=zoo/nothing", "neuroal sparsity=[[1],[2]]"),
    *("neuroal pruner._target_=../../etc", "neuroal hydra.sweeper.params={seed:1}"),
    *("neuroal save.model=.", "neuroal task=[1,2]", "neuroal model.revision=1e10"),
    *(f"neuroal out={'y' * 300}", f"neuroal seed={'x' * 5000}", "neuroal 'seed=1;reboot'"),
    *("neuroal.grid status", "neuroal.grid --foo", "neuroal.grid", "neuroal.grid run --chunk=5"),
)
MODULES = {"neuroal.grid": "neuroal.grid", "neuroal": "neuroal"}


def end(line: str, folder: Path) -> tuple[str, int, list[str]]:
    """Run a command line; return it with its exit code and its lines on stderr."""
    module, *arguments = shlex.split(line)
    command = [sys.executable, "-m", MODULES[module], *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return line, process.returncode, process.stderr.splitlines()


def test_processes_end_with_one_line(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda line: end(line, tmp_path), LINES))
    assert len(ends) == 20
    for line, code, printed in ends:
        assert (line, code) == (line, 2), printed
        assert len(printed) == 1, (line, printed)
        assert printed[0].startswith("neuroal: ")
        assert len(printed[0]) <= 1500
