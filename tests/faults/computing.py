"""Faults while computing: no memory, NaN in activations, and a tracking service out of reach."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.rig import REPAIRED, VARIANTS, Injection, Rig, judge, survive, temporary

ALLOCATORS: dict[str, Callable[[], Exception]] = {
    "CPU": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "Python": MemoryError,
}
"""Allocator → the error that it raises."""
CALLS = 160
"""Upper bound on the calls of linears in a run; an injection into a later call does nothing."""


@contextmanager
def at_linear(number: int, act: Callable[[Any], Any]) -> Iterator[None]:
    """Apply `act` to the output of call `number` of a linear."""
    forward, calls = torch.nn.Linear.forward, 0

    def changed(self: torch.nn.Linear, inputs: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        output = forward(self, inputs)
        return act(output) if calls == number else output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", changed)
        yield


def out_of_memory(seed: int, count: int = 12) -> Iterator[Injection]:
    """Yield errors of every allocator at random calls of a linear."""
    generator = random.Random(seed)
    for name in ALLOCATORS:
        for variant in VARIANTS:
            for number in generator.sample(range(1, CALLS), count):
                run = partial(_out_of_memory, variant=variant, allocator=name, number=number)
                yield Injection("out of memory", f"{name}, {variant} {number}", run)


def _out_of_memory(rig: Rig, folder: Path, variant: str, allocator: str, number: int) -> str:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise ALLOCATORS[allocator]()

    folder.mkdir()
    return survive(rig, variant, folder, lambda: at_linear(number, fail))


def nan_activations(seed: int, count: int = 24) -> Iterator[Injection]:
    """Yield NaN in the output of one linear."""
    generator = random.Random(seed)
    for variant in VARIANTS:
        for number in generator.sample(range(1, CALLS), count):
            run = partial(_nan, variant=variant, number=number)
            yield Injection("NaN in activations", f"{variant} {number}", run)


def _nan(rig: Rig, folder: Path, variant: str, number: int) -> str:
    """Inject NaN; of the pruned model it is recorded as an infinite perplexity, with a warning."""
    folder.mkdir()
    with at_linear(number, lambda output: output * float("nan")):
        code, error = rig.call(variant, folder)
    way = judge(code, error)
    assert not temporary(folder), f"left: {temporary(folder)}"
    records = [path.read_text() for path in (folder / "out").glob("*.json")]
    if any('"value": null' in text for text in records):
        code, error = rig.call(variant, folder, force=True)
        assert code == 0, error
    rig.check_restart(variant, folder)
    return way


def unreachable_tracking(count: int = 4) -> Iterator[Injection]:
    """Yield runs whose tracking service cannot be reached."""
    for index in range(count):
        yield Injection("W&B out of reach", str(index), partial(_untracked, index=index))


def _untracked(rig: Rig, folder: Path, index: int) -> str:
    variant = ("disk", "updates")[index % 2]
    logger = dataclasses.replace(
        rig.config(variant, folder).logger, name="wandb", mode="online", timeout=2.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        patch.setenv("WANDB_API_KEY", "0" * 40)
        patch.setenv("WANDB_DIR", str(folder))
        code, error = rig.call(variant, folder, logger=logger)
    assert judge(code, error) == REPAIRED, error
    assert "logger=wandb" in error
    assert "WANDB_BASE_URL" not in os.environ
    rig.check_restart(variant, folder)
    return REPAIRED
