"""Errors of the machine are one line that names the file and the remedy."""

from __future__ import annotations

import errno
import os

import pytest

from neuroal.errors import UserError
from neuroal.files.machine import MachineError, line_of, machine_errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), ["a/b: no space", "free"]),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "a"), ["a: read-only", "writable folder"]),
        (OSError(errno.EIO, os.strerror(errno.EIO)), ["out=runs: input/output", "file system"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone"), ["gone: ", "deleted"]),
        (MemoryError(), ["memory does not suffice", "smaller batch"]),
        (RuntimeError("CUDA error: out of memory"), ["not suffice", "fewer workers", "offload"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ["memory does not suffice"]),
        (Exception("I/O error: No space left on device (os error 28)"), ["no space left", "free"]),
    ],
)
def test_the_line_names_file_and_remedy(error: Exception, words: list[str]) -> None:
    with pytest.raises(MachineError) as raised, machine_errors("out=runs"):
        raise error
    text = str(raised.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), UserError("a mistake"), OSError("no code"), BrokenPipeError(32, "pipe")],
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    assert line_of(error) is None
    with pytest.raises(type(error)) as raised, machine_errors():
        raise error
    assert raised.value is error
