"""Copies between host and device that overlap with computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PendingCopy:
    """A tensor that is being copied to the device; `CopyStream.join` makes it usable."""

    tensor: Tensor
    event: torch.cuda.Event | None
    """Marks the end of the copy; None on a CPU."""


class CopyStream:
    """Issues copies on a separate CUDA stream, which executes them in order.

    On a CPU, each method completes its copy before it returns.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Issue work on the copy stream, after all computation queued so far."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            yield

    def _record_event(self) -> torch.cuda.Event | None:
        return None if self._stream is None else self._stream.record_event()

    def upload(self, host: Tensor) -> PendingCopy:
        """Start copying `host` to a new tensor on the device."""
        if self._stream is None:
            return PendingCopy(host.clone(), None)
        with torch.cuda.stream(self._stream):
            return PendingCopy(host.to(self.device, non_blocking=True), self._record_event())

    def fill(self, target: Tensor, host: Tensor) -> PendingCopy:
        """Start copying `host` into `target`, after all computation queued so far."""
        with self._on_stream():
            target.copy_(host, non_blocking=True)
            return PendingCopy(target, self._record_event())

    def join(self, pending: PendingCopy) -> Tensor:
        """Return the copied tensor; the computation stream waits for the copy, the CPU does not."""
        if pending.event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(pending.event)
            pending.tensor.record_stream(stream)
        return pending.tensor

    def download(self, tensor: Tensor, host: Tensor) -> None:
        """Start copying `tensor` into `host`, after all computation queued so far.

        Later uploads read the new content. The CPU must synchronise before it reads `host`.
        """
        with self._on_stream():
            host.copy_(tensor, non_blocking=True)
            if self._stream is not None:
                tensor.record_stream(self._stream)

    def finish(self, pending: PendingCopy) -> None:
        """Block the CPU until the copy is complete."""
        if pending.event is not None:
            pending.event.synchronize()
