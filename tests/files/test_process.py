"""Temporary files and folders of killed processes are deleted, those of running ones are not."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from neuroal.files.atomic import write_bytes
from neuroal.files.process import DAY, remove_abandoned, temporary_path


def in_a_process_that_ends(path: Path) -> Path:
    """Return the temporary folder that a process made, which has ended."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: temporary_path(path).mkdir()
    )
    process.start()
    process.join()
    (folder,) = path.parent.glob(f".{path.name}.*")
    return folder


def test_the_folder_of_a_killed_process_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    dead = in_a_process_that_ends(path)
    alive, other = temporary_path(path), temporary_path(tmp_path / "b")
    alive.mkdir()
    other.write_text("")
    remove_abandoned(path)
    assert not dead.exists()
    assert alive.exists()
    remove_abandoned(path, own=True)
    assert not alive.exists()
    assert other.exists()


def test_a_write_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    in_a_process_that_ends(tmp_path / "x")
    write_bytes(tmp_path / "x", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_of_other_machines_are_deleted_after_a_day(tmp_path: Path) -> None:
    foreign = tmp_path / ".x.0123456789ab-1-1-0123456789ab"
    foreign.write_text("")
    remove_abandoned(tmp_path / "x")
    assert foreign.exists()
    os.utime(foreign, (time.time() - 2 * DAY,) * 2)
    remove_abandoned(tmp_path / "x")
    assert not foreign.exists()


def test_other_hidden_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".x.backup").write_text("")
    (tmp_path / ".x.a-b-c-d").write_text("")
    remove_abandoned(tmp_path / "x", own=True, foreign=True)
    assert len(list(tmp_path.iterdir())) == 2
