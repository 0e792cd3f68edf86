"""Digests of unchanged files are read from a cache; a changed file is read again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from neuroal.files import digest
from neuroal.files.digest import cache_folder, digest_of_file, digests_of_files


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file whose digest may be cached, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "LEAST_CACHED", 1)
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    past = time.time() - 60
    os.utime(path, (past, past))
    return path


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_an_unchanged_file_is_read_once(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest_of_file(settled) == sha256(b"one")
    digest._cached.cache_clear()  # as in another process
    monkeypatch.setattr(digest, "_read", lambda path: pytest.fail("the file was read again"))
    assert digest_of_file(settled) == sha256(b"one")


def test_a_file_of_the_same_size_and_time_but_another_inode_is_read(settled: Path) -> None:
    assert digest_of_file(settled) == sha256(b"one")
    stat, other = settled.stat(), settled.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, settled)
    assert digest_of_file(settled) == sha256(b"two")


def test_a_file_that_has_just_changed_is_not_cached(settled: Path) -> None:
    settled.write_bytes(b"two")
    assert digest_of_file(settled) == sha256(b"two")
    assert not cache_folder().exists()


def test_a_damaged_or_read_only_cache_costs_only_time(settled: Path) -> None:
    assert digest_of_file(settled) == sha256(b"one")
    (entry,) = cache_folder().iterdir()
    entry.write_text("{")
    digest._cached.cache_clear()
    assert digest_of_file(settled) == sha256(b"one")
    entry.unlink()
    cache_folder().rmdir()
    cache_folder().write_text("")  # a file in place of the folder: nothing can be written
    digest._cached.cache_clear()
    assert digest_of_file(settled) == sha256(b"one")


def test_several_files_keep_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "cab"]
    for path in paths:
        path.write_text(path.name)
    assert digests_of_files(paths) == [sha256(name.encode()) for name in "cab"]
