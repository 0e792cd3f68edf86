"""A sample of the faults that ``make faults`` injects; `results/reliability.md` has them all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import checkpoints, computing, damage, processes, storage
from tests.faults.rig import Injection, Rig

SEED = 1


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig.build(tmp_path_factory.mktemp("faults"))


def sample(injections: Iterator[Injection], count: int) -> list[Injection]:
    """Return `count` of the injections, drawn at random with a seed."""
    return random.Random(SEED).sample(list(injections), count)


def check(rig: Rig, injections: list[Injection], folder: Path) -> None:
    """Inject faults; each raises if the run lost something."""
    for number, injection in enumerate(injections):
        try:
            injection.run(rig, folder / str(number))
        except AssertionError as error:
            raise AssertionError(f"{injection.fault}: {injection.name}: {error}") from error


def test_damaged_files_are_repaired_or_named(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(damage.damaged_files(SEED), 8), tmp_path)


def test_damaged_and_old_locks_block_no_longer_than_their_lease(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(damage.locks(SEED), 4), tmp_path)


def test_a_run_survives_errors_of_file_operations(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(storage.failing_operations(rig), 8), tmp_path)


@pytest.mark.skipif(not storage.can_mount(), reason="mounting needs root")
def test_a_run_survives_full_and_read_only_disks(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(storage.full_disks(rig), 4) + sample(storage.read_only(rig), 2), tmp_path)


def test_a_run_survives_signals(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(processes.signals(SEED), 4), tmp_path)


def test_a_suspended_process_and_its_successor_write_the_same(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(processes.suspended(SEED), 1), tmp_path)


def test_two_workers_that_start_together_write_the_same(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(processes.together(), 2), tmp_path)


def test_no_memory_and_nan_are_one_line(rig: Rig, tmp_path: Path) -> None:
    faults = sample(computing.out_of_memory(SEED), 4) + sample(computing.nan_activations(SEED), 4)
    check(rig, faults, tmp_path)


def test_damaged_checkpoints_are_named(rig: Rig, tmp_path: Path) -> None:
    check(rig, sample(checkpoints.damaged_checkpoints(SEED), 4), tmp_path)
