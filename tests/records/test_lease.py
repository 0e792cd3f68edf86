"""One process holds a lock; a dead one's is free again."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from neuroal.records.lease import leased


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "work.lock"
    with leased(lock) as first, leased(lock) as second:
        assert first
        assert not second
    with leased(lock) as third:
        assert third
    assert not lock.exists()


def test_of_many_exactly_one_holds_it(tmp_path: Path) -> None:
    start, held = threading.Barrier(8), []

    def compete() -> None:
        start.wait()
        with leased(tmp_path / "work.lock") as mine:
            held.append(mine)
            time.sleep(0.2)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == [False] * 7 + [True]


def test_the_lock_of_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"
    lock.write_text("{}")
    os.utime(lock, (time.time() - 300,) * 2)
    with leased(lock, lease=120) as mine:
        assert mine


def test_a_living_holder_renews_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"
    with leased(lock, lease=0.4):
        time.sleep(0.8)
        with leased(lock, lease=0.4) as other:
            assert not other


def test_a_failure_inside_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"
    try:
        with leased(lock):
            raise RuntimeError("work failed")
    except RuntimeError:
        assert not lock.exists()
