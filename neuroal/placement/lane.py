"""Copies between host and device that run beside the computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Arriving:
    """A tensor on its way; `Lane.join` gives it to the computation."""

    tensor: Tensor
    event: torch.cuda.Event | None


class Lane:
    """Copies on a stream of their own, in the order in which they were asked for.

    On a CPU every copy is done when its method returns.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work on the side stream, after what the computation has been told to do so far."""
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            yield

    def _mark(self) -> torch.cuda.Event | None:
        return None if self._side is None else self._side.record_event()

    def upload(self, host: Tensor) -> Arriving:
        """A copy of `host` on the device."""
        if self._side is None:
            return Arriving(host.clone(), None)
        with torch.cuda.stream(self._side):
            return Arriving(host.to(self.device, non_blocking=True), self._mark())

    def fill(self, target: Tensor, host: Tensor) -> Arriving:
        """Copy `host` into `target`, once the computation no longer needs what is there."""
        with self._aside():
            target.copy_(host, non_blocking=True)
            return Arriving(target, self._mark())

    def join(self, arriving: Arriving) -> Tensor:
        """The copied tensor; the computation waits for it from here on."""
        if arriving.event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(arriving.event)
            arriving.tensor.record_stream(stream)
        return arriving.tensor

    def download(self, tensor: Tensor, host: Tensor) -> None:
        """Copy `tensor` into `host`; uploads asked for later see it there, the CPU may not yet."""
        with self._aside():
            host.copy_(tensor, non_blocking=True)
            if self._side is not None:
                tensor.record_stream(self._side)

    def finish(self, arriving: Arriving) -> None:
        """Let the CPU wait until the copy is done."""
        if arriving.event is not None:
            arriving.event.synchronize()
