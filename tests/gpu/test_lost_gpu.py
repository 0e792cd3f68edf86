"""A process whose GPU failed notices it; one whose GPU is full does not stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neuroal.files.gpu_errors import is_memory_error, lost_gpu

WORKER = """
import sys, torch
import neuroal.run
from neuroal.cli.grid import grid_command

def run(config, **options):
    index = torch.tensor([7], device="cuda")
    torch.zeros(2, device="cuda")[index].sum().item()

neuroal.run.run = run
from neuroal.cli.application import exit_with
exit_with(lambda: grid_command(sys.argv[1:]))
"""
"""A worker whose runs end the CUDA context by an index out of range."""


def test_a_worker_stops_after_the_first_run_that_ends_its_context(tmp_path: Path) -> None:
    grid = ["experiment=quick", "topup=uniform,owl", "refine=none", f"out={tmp_path}"]
    command = [sys.executable, "-c", WORKER, "run", *grid]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "the GPU failed, and this process cannot use it any more" in ended.stderr
    assert len(list((tmp_path / "state").glob("*.failed.json"))) == 1


def test_a_full_gpu_is_not_lost() -> None:
    total = torch.cuda.mem_get_info()[1]
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2 * total, dtype=torch.uint8, device="cuda")
    assert is_memory_error(raised.value)
    assert lost_gpu("auto") is None
