"""A grid on a real SLURM: arrays, submitit, kills, requeues, a drained node, scancel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.grid.small import FOUR, leftovers, results

ROOT = Path(__file__).parents[2]
MISSING = [name for name in ("sbatch", "slurmd", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"no {MISSING}: apt install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a SLURM of its own needs root"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a one-node SLURM and set SLURM_CONF to it."""
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "slurm" / "local_cluster.sh")
    subprocess.run([script, "start", str(folder)], check=True)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run([script, "stop", str(folder)], check=True)
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Return the results of a worker without SLURM."""
    out = tmp_path_factory.mktemp("undisturbed")
    grid("run", out)
    expected = results(out)
    assert len(expected) == 4
    return expected


def shell(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def grid(action: str, out: Path) -> str:
    return shell(sys.executable, "-m", "neuroal.grid", action, *FOUR, f"out={out}")


def submit(out: Path, array: str) -> str:
    """Submit the grid as an array; return the number of the job."""
    log = f"--output={out.parent}/%A_%a.log"
    script = str(ROOT / "slurm" / "array.sbatch")
    sent = shell("sbatch", "--parsable", f"--array={array}", log, script, *FOUR, f"out={out}")
    return sent.strip()


def wait(job: str, limit: float = 600) -> None:
    """Wait until the queue has no task of `job`."""
    _until(lambda: not shell("squeue", "-h", "-j", job).strip(), limit)


def _until(done: Callable[[], bool], limit: float = 300) -> None:
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end, shell("squeue", "-a")
        time.sleep(0.2)


def begun(out: Path) -> bool:
    """Return whether a worker holds a run."""
    return any((out / "state").glob("*.lock.0"))


def test_an_array_writes_the_records_of_one_worker(
    cluster: Path, undisturbed: Mapping[str, Any], tmp_path: Path
) -> None:
    wait(submit(tmp_path / "runs", "1-2%2"))
    assert results(tmp_path / "runs") == undisturbed
    assert not leftovers(tmp_path / "runs")


def test_killed_and_requeued_tasks_lose_nothing(
    cluster: Path, undisturbed: Mapping[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    job = submit(out, "1-2%1")
    _until(lambda: begun(out))
    holder = next((out / "state").glob("*.lock.0")).read_text()
    number = holder.partition('"process": ')[2].partition(",")[0]
    os.kill(int(number), 9)  # the script of the array requeues itself
    _until(lambda: "back into the queue" in (tmp_path / f"{job}_1.log").read_text())
    _until(lambda: shell("squeue", "-h", "-j", job, "-t", "R").strip() != "")
    shell("scontrol", "requeue", f"{job}_2") if _runs(f"{job}_2") else None
    wait(job)
    assert results(out) == undisturbed
    assert not leftovers(out)


def _runs(task: str) -> bool:
    return "RUNNING" in shell("scontrol", "show", "job", task)


def test_requeued_and_cancelled_arrays_and_drained_nodes_lose_nothing(
    cluster: Path, undisturbed: Mapping[str, Any], tmp_path: Path
) -> None:
    out, node = tmp_path / "runs", shell("sinfo", "-h", "-o", "%n").strip()
    job = submit(out, "1-1")
    _until(lambda: begun(out))
    shell("scontrol", "update", f"nodename={node}", "state=drain", "reason=trial")
    shell("scontrol", "requeue", f"{job}_1")
    _until(lambda: "PENDING" in shell("scontrol", "show", "job", f"{job}_1"))
    assert len(results(out)) < 4
    shell("scontrol", "update", f"nodename={node}", "state=resume")
    _until(lambda: _runs(f"{job}_1") and begun(out))
    shell("scancel", job)
    wait(job)
    wait(submit(out, "1-2%2"))  # the remaining runs
    assert results(out) == undisturbed
    assert not leftovers(out)


def test_submitit_runs_the_same_grid(
    cluster: Path, undisturbed: Mapping[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
    out = tmp_path / "runs"
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]
    shell(sys.executable, "-m", "neuroal", "-m", *FOUR, *launcher, f"out={out}")
    assert results(out) == undisturbed
    assert grid("status", out).startswith("4 runs: 4 done")
