"""A group of devices that hold the same model, with one process for each of them.

The process of the caller works on the first device itself, so that results, masks and the pruned
model are where they are used, and no second copy of the model is on that device.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import process
from typing import Any

import torch
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.connection import Connected, make_store
from neuroal.parallel.peers import ALONE, PeerFailed
from neuroal.parallel.processes import Processes
from neuroal.parallel.transfer import ModelCopy, dumps, loads
from neuroal.parallel.worker import Reply, Request, Setup, cancel, claims, guarded
from neuroal.tracking.progress import Progress

NO_REQUEST = -1


class DeviceGroup:
    """Devices that hold copies of `model`. The processes start when they are first needed.

    Args:
        devices: all devices, the one of the model first.

    Attributes:
        model: the model, on the first device; set before the group is used.
        seconds: seconds until the processes are connected (``start``), the part of it in which this
            process waited (``wait``), and seconds to copy the model (``copy``).
    """

    model: PreTrainedModel

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = tuple(devices)
        self._begin: float | None = None
        self._processes = Processes(self._abort)
        self._numbers = itertools.count(1)
        self._busy: dict[int, int] = {}
        """Rank → number of the request that its process is doing."""
        self._store: Any = None
        self._peers: Connected | None = None
        self._copy: ModelCopy | None = None
        self._closed = False
        self.seconds: dict[str, float] = {}

    @property
    def size(self) -> int:
        return len(self._devices)

    def run(
        self,
        function: Callable[..., Any],
        decoder: DecoderModel,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        progress: Progress,
    ) -> Any:
        """Return ``function(decoder, *args, progress=progress, **kwargs)`` of the first device.

        All devices run the function together, with `DecoderModel.peers` connected to each other;
        only the first one reports progress.

        Raises:
            Exception: what the function raised on the device that failed first.
        """
        content = dumps((function, decoder.selection, args, kwargs))
        number = self._request("run", content)
        assert self._peers is not None
        decoder.peers = self._peers
        try:
            work = lambda: function(decoder, *args, progress=progress, **kwargs)  # noqa: E731
            with self._failures_of_others(number):
                result = guarded(self._peers, work)
                self._finish(number)
        finally:
            decoder.peers = ALONE
        return result

    def stream(
        self,
        function: Callable[..., Iterator[Any]],
        decoder: DecoderModel,
        args: Sequence[Any],
        local: Callable[[Callable[[], int]], Iterator[Any]],
    ) -> Iterator[Any]:
        """Yield the items of ``function(decoder, claim, *args)`` of all devices, as they arrive.

        Each device works alone, on pieces of work that it takes by `claim` (`worker.claims`) when
        it is free. The first device iterates over ``local(claim)``.
        """
        number = self._request("stream", dumps((function, decoder.selection, args)))
        store = self._store
        try:
            for item in local(claims(store, number)):
                yield item
                yield from self._items(number, block=False)
            yield from self._items(number, block=True)
        except BaseException:
            cancel(store, number)
            raise

    def post(
        self, function: Callable[..., object], decoder: DecoderModel, args: Sequence[Any]
    ) -> None:
        """Let all other devices call ``function(decoder, *args)``, and do not wait for them.

        The next request waits. An error is ignored, so `function` may only prepare what a further
        request would do otherwise.
        """
        self._request("call", dumps((function, decoder.selection, args)))

    def refresh(self) -> None:
        """Copy the weights of the first device to all others, after they were changed there."""
        if self._peers is None or self._copy is None:
            return  # not started: the weights will be copied at the start
        number = self._request("refresh", b"")
        peers, copy = self._peers, self._copy
        with self._failures_of_others(number):
            guarded(peers, lambda: copy.broadcast(peers))
            self._finish(number)

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        self._abort()
        self._processes.close()
        self._busy = {}
        self._peers = self._store = self._copy = None

    def _request(self, kind: str, content: bytes) -> int:
        """Send a request to all processes, and return its number."""
        self._start()
        while self._busy:  # a request that was given up after an error
            self._take(NO_REQUEST)
        number = next(self._numbers)
        request = pickle.dumps(Request(number, kind))
        self._busy = dict.fromkeys(range(1, self.size), number)
        for index in range(self.size - 1):
            self._processes.send(index, request, content)
        return number

    @contextmanager
    def _failures_of_others(self, number: int) -> Iterator[None]:
        """Raise the error of the device that failed instead of `PeerFailed`."""
        try:
            yield
        except PeerFailed:
            self._finish(number)
            raise
        except Exception as error:  # perhaps because a process has ended
            index = self._processes.first_ended()
            if index is None:
                raise
            raise self._ended(index) from error
        except BaseException:  # such as Ctrl-C: the others would wait for this device
            self.close()
            raise

    def _finish(self, number: int) -> None:
        """Wait for the last reply of every process."""
        while self._busy:
            self._take(number)

    def _items(self, number: int, *, block: bool) -> Iterator[Any]:
        """Yield the items that have arrived, or all further ones if `block`."""
        while self._busy if block else not self._processes.silent:
            reply = self._take(number)
            if reply.kind == "item" and reply.number == number:
                yield loads(reply.content)

    def _take(self, number: int) -> Reply:
        """Wait for a reply and return it; raise the error that it reports about request `number`.

        Raises:
            UserError: a process has ended.
        """
        index, reply = self._processes.receive()
        if reply is None:
            raise self._ended(index)
        if reply.kind != "item":
            self._busy.pop(index + 1, None)
        for note in reply.notes:
            _warn(*note)
        if reply.kind == "error" and reply.number == number:
            raise loads(reply.content)
        return reply

    def _ended(self, index: int) -> UserError:
        """Close the group, and return an error about a process that has ended."""
        code = self._processes.exit_code(index)
        self.close()
        return UserError(
            f"devices={self.size}: the process of {self._devices[index + 1]} ended unexpectedly "
            f"(exit code {code}), perhaps for lack of memory; start again, or use fewer devices"
        )

    def _abort(self) -> None:
        """End exchanges between GPUs, which would wait for ever for a process that has ended."""
        if self._peers is not None:
            self._peers.abort()

    def launch(self) -> None:
        """Start the processes, without waiting for them."""
        self._begin = time.perf_counter()
        self._store = make_store(self.size)
        cuda = self._devices[0].type == "cuda"
        setups = [self._setup(rank, cuda) for rank in range(1, self.size)]
        self._processes.start(self._devices[1:], setups)

    def _start(self) -> None:
        """Connect the processes and copy the model, unless that is done."""
        if self._peers is not None:
            return
        if self._closed:
            raise UserError(f"devices={self.size}: the processes of the devices have ended")
        begin = time.perf_counter()
        if self._begin is None:
            self.launch()
        copy = ModelCopy(self.model)
        self._await_replies()
        cuda = self._devices[0].type == "cuda"
        self._peers = Connected(self._store, 0, self.size, cuda=cuda)
        connected = time.perf_counter()
        self.seconds |= {"start": connected - (self._begin or begin), "wait": connected - begin}
        for index in range(self.size - 1):
            self._processes.send(index, copy.packed())
        copy.broadcast(self._peers)
        self._await_replies()
        self._copy = copy
        self.seconds["copy"] = time.perf_counter() - connected

    def _setup(self, rank: int, cuda: bool) -> Setup:
        return Setup(
            rank,
            self.size,
            self._store.port,
            cuda,
            max(1, torch.get_num_threads() // (self.size if cuda else 1)),
            torch.get_float32_matmul_precision(),
            bytes(process.current_process().authkey),
        )

    def _await_replies(self) -> None:
        self._busy = dict.fromkeys(range(1, self.size), 0)
        try:
            self._finish(0)
        except BaseException:
            self.close()
            raise


def _warn(category: type[Warning], text: str, file: str, line: int) -> None:
    """Repeat a warning of another process, which Python shows once for the same line and text."""
    modules = (vars(module) for module in list(sys.modules.values()) if module is not None)
    owner: dict[str, Any] = next((m for m in modules if m.get("__file__") == file), {})
    registry = owner.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, category, file, line, registry=registry)
