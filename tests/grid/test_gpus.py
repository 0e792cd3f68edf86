"""Each worker on a machine reserves a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuroal.grid.gpus import own_device

TAKE = """
import sys
from pathlib import Path
from neuroal.grid.gpus import _own
print(_own(("0", "1"), Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_workers_reserve_different_gpus(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        reserved = {worker.stdout.readline().strip() for worker in workers if worker.stdout}
        assert reserved == {"0", "1"}
    finally:
        for worker in workers:
            worker.communicate()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "count"), [("cpu", 4), ("cuda:1", 4), ("auto", 1)])
def test_a_named_device_is_unchanged(
    device: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert own_device(device) == device
