"""Run Triton kernels on the CPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neuroal.kernels.selection import has_triton

SCALARS = "only 0-dimensional arrays can be converted to Python scalars"
"""Why the interpreter of Triton 3.6 cannot run a loop with NumPy 2.4 or newer."""
needs_triton = pytest.mark.skipif(
    not has_triton(), reason="Triton is not installed; its interpreter needs no GPU"
)


def run_in_interpreter(code: str) -> None:
    """Run `code` in a process whose kernels run in the interpreter; it must end without an error.

    Skips the test if this version of the interpreter does not work with this NumPy.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if SCALARS in result.stderr:
        pytest.skip("this version of Triton's interpreter does not work with this NumPy")
    assert result.returncode == 0, result.stderr
