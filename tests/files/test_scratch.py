"""Temporary folders of a killed process are deleted, those of a running one are not."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from neuroal.files.scratch import new_scratch, remove_abandoned


def test_the_folder_of_a_killed_process_is_deleted(tmp_path: Path) -> None:
    beginning = tmp_path / ".a.offload-"
    process = multiprocessing.get_context("fork").Process(target=new_scratch, args=(beginning,))
    process.start()
    process.join()
    (dead,) = tmp_path.iterdir()
    alive, other = new_scratch(beginning), new_scratch(tmp_path / ".b.offload-")
    remove_abandoned(beginning)
    assert not dead.exists()
    assert alive.exists()
    remove_abandoned(beginning, own=True)
    assert not alive.exists()
    assert other.exists()


def test_a_folder_without_an_owner_is_deleted(tmp_path: Path) -> None:
    """As a full disk leaves it."""
    (tmp_path / ".a.offload-x").mkdir()
    remove_abandoned(tmp_path / ".a.offload-")
    assert not list(tmp_path.iterdir())
