"""`slurm/submit.sh` passes overrides to the array unchanged, whatever characters they hold."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OVERRIDES = [
    "experiment=zoo",
    "out=runs with spaces",
    "data.root=$(touch trapped)",
    "save.plan=`touch trapped`",
    "logger.group=\"two\" 'quotes'",
    "model.exclude=['*.q_proj','0.*']",
    "calibration.path=a;touch trapped",
    "hydra.sweeper.axes.seed=[0,1]",
    "logger.project=*",
    "model=zoo/llama,zoo/opt",
]


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def submitted(tmp_path: Path) -> list[list[str]]:
    """Return the arguments of every call of sbatch, and those of the plan first."""
    log = tmp_path / "log"
    record = f'printf "%s\\0" "$@" >> {log}; printf "\\0" >> {log}'
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "*").write_text("")
    script(tmp_path / "bin" / "sbatch", f"cat > /dev/null; {record}")
    script(
        tmp_path / "bin" / "python", f'{record}; printf "zoo/llama 9 3\\nzoo/opt 5 1\\nx 2 0\\n"'
    )
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(
        [str(ROOT / "slurm" / "submit.sh"), *OVERRIDES],
        cwd=tmp_path / "work",
        env={**os.environ, "PATH": path},
        check=True,
    )
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["*"]
    return [call.split("\0") for call in log.read_text().removesuffix("\0\0").split("\0\0")]


def test_overrides_are_passed_unchanged_and_nothing_in_them_is_run(
    submitted: list[list[str]],
) -> None:
    plan, *arrays = submitted
    assert plan == ["-P", "-m", "neuroal.grid", "plan", *OVERRIDES, "--models"]
    assert [call[-1] for call in arrays] == ["model=zoo/llama", "model=zoo/opt"]  # x has no runs
    for call in arrays:
        begin = call.index(str(ROOT / "slurm" / "array.sbatch"))
        assert call[begin + 1 : -1] == OVERRIDES[:-1]
    assert "--array=1-3%8" in arrays[0]


def test_a_plan_that_fails_fails_the_submission(tmp_path: Path) -> None:
    script(tmp_path / "python", "exit 2")
    script(tmp_path / "sbatch", "exit 9")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(ROOT / "slurm" / "submit.sh"), "experiment=zoo"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 2
