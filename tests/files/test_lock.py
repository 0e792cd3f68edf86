"""One process holds a lock at a time, and the lock of a dead process is taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from neuroal.files import lock
from neuroal.files.lock import is_held, leased

HOLD = """
import sys, time
from pathlib import Path
from neuroal.files.lock import leased
with leased(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def elsewhere(path: Path, generation: int = 0, age: float = 0.0) -> Path:
    """Write a lock file of another machine, renewed `age` seconds ago."""
    file = path.with_name(f"{path.name}.{generation}")
    file.write_text(json.dumps({"machine": "another", "process": 1, "started": "1", "token": "t"}))
    os.utime(file, (time.time() - age, time.time() - age))
    return file


def test_one_process_holds_it_and_it_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with leased(path) as mine:
        assert mine
        assert is_held(path)
        with leased(path) as second:
            assert not second
    assert not is_held(path)
    assert not list(tmp_path.iterdir())


def test_a_killed_holder_is_detected_immediately(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = holder(path)
    with leased(path) as mine:
        assert not mine
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_held(path)
    with leased(path) as mine:
        assert mine
    assert not list(tmp_path.iterdir())


def test_a_holder_on_another_machine_is_dead_after_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    elsewhere(path, age=lock.LEASE / 2)
    with leased(path) as mine:
        assert not mine
    elsewhere(path, age=lock.LEASE * 2)
    with leased(path) as mine:
        assert mine
    assert not list(tmp_path.iterdir())


def test_a_holder_renews_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with leased(path, lease=0.4):
        time.sleep(1)
        assert is_held(path, lease=0.4)


def test_a_late_claim_on_a_dead_holders_lock_leaves_its_successors_alone(tmp_path: Path) -> None:
    """Between the check and the claim, a process took over and finished, and a third one began."""
    path = tmp_path / "x.lock"
    seen = lock.Holder.read(elsewhere(path, age=lock.LEASE * 2))
    elsewhere(path).write_text(json.dumps({"machine": "a third", "process": 2, "started": "2"}))
    original = lock._last
    try:
        lock._last = lambda _: (1, seen)
        assert lock._take(path, lock.LEASE) is None
    finally:
        lock._last = original
    assert [file.name for file in tmp_path.iterdir()] == ["x.lock.0"]


def _contend(path: Path, log: Path, rounds: int) -> None:
    done = 0
    while done < rounds:
        with leased(path) as mine:
            if mine:
                with log.open("a") as file:
                    file.write("+\n")
                time.sleep(0.001)
                with log.open("a") as file:
                    file.write("-\n")
                done += 1


def test_contending_processes_never_hold_it_together(tmp_path: Path) -> None:
    path, log = tmp_path / "x.lock", tmp_path / "log"
    elsewhere(path, age=lock.LEASE * 2)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_contend, args=(path, log, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "+\n-\n" * 100


def test_of_many_threads_exactly_one_holds_it(tmp_path: Path) -> None:
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


def test_a_claim_during_a_release_fails_and_succeeds_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = lock._last

    def cleaned(path: Path) -> tuple[int, lock.Holder | None]:
        for probe in path.parent.glob(f".{path.name}.*"):
            probe.unlink()
        return last(path)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "_last", cleaned)
        with leased(tmp_path / "lock") as mine:
            assert not mine
    with leased(tmp_path / "lock") as mine:
        assert mine


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="work failed"), leased(tmp_path / "work.lock"):
        raise RuntimeError("work failed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("age", [-1e9, -2 * lock.LEASE])
def test_a_lock_of_the_future_is_free(age: float, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    elsewhere(path, age=age)
    assert not is_held(path)
    with leased(path) as mine:
        assert mine


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"\xff\xfe", b'{"machine": 1}', b"[" * 100_000]
)
def test_a_damaged_lock_is_free_after_its_lease(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    elsewhere(path).write_bytes(content)
    assert is_held(path)
    elsewhere(path, age=2 * lock.LEASE).write_bytes(content)
    os.utime(tmp_path / "x.lock.0", (time.time() - 2 * lock.LEASE,) * 2)
    with leased(path) as mine:
        assert mine
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_a_lock_is_an_error_and_changes_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("{}")
    path = tmp_path / "x.lock"
    (tmp_path / "x.lock.0").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"), leased(path):
        pass
    assert (tmp_path / "target").read_text() == "{}"
