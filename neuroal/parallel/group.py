"""A group of devices that hold the same model, with one process for each of them.

The process of the caller works on the first device itself, so that results, masks and the pruned
model are where they are used, and no second copy of the model is on that device.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, process
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

import torch
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.connection import Connected, make_store
from neuroal.parallel.peers import ALONE, PeerFailed
from neuroal.parallel.transfer import ModelCopy, dumps, loads
from neuroal.parallel.worker import BOOT, Reply, Request, Setup, claims, guarded
from neuroal.placement.base import Resident, placement_of, set_placement
from neuroal.tracking.progress import Progress

NO_REQUEST = -1
CANCELLED = 2**40
"""Index of work that no stream has: all further work of a stream is taken."""


class DeviceGroup:
    """Devices that hold copies of `model`. The processes start when they are first needed.

    Args:
        model: the model, on the first device.
        devices: all devices, the one of `model` first.

    Attributes:
        seconds: seconds to start the processes (``start``) and to copy the model (``copy``).
    """

    def __init__(self, model: PreTrainedModel, devices: Sequence[torch.device]) -> None:
        self._model, self._devices = model, tuple(devices)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._replies: SimpleQueue[tuple[int, Reply | None]] = SimpleQueue()
        self._numbers = itertools.count(1)
        self._busy: dict[int, int] = {}
        """Rank → number of the request that its process is doing."""
        self._store: Any = None
        self._peers: Connected | None = None
        self._copy: ModelCopy | None = None
        self._reader: threading.Thread | None = None
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
        local: Callable[[Callable[[int], int]], Iterator[Any]],
    ) -> Iterator[Any]:
        """Yield the items of ``function(decoder, claim, *args)`` of all devices, as they arrive.

        Each device works alone, on pieces of work that it takes by `claim` (`worker.claims`) when
        it is free. The first device iterates over ``local(claim)``.
        """
        number = self._request("stream", dumps((function, decoder.selection, args)))
        claim = claims(self._store, number)
        try:
            for item in local(claim):
                yield item
                yield from self._items(number, block=False)
            yield from self._items(number, block=True)
        except BaseException:
            claim(CANCELLED)
            raise

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
        for worker in self._processes:
            worker.kill()
        for worker in self._processes:
            worker.wait()
        if self._reader is not None:
            self._reader.join()  # it reads the end of all connections
        for connection in self._connections:
            connection.close()
        self._processes, self._connections, self._busy = [], [], {}
        self._peers = self._store = self._copy = None

    def _request(self, kind: str, content: bytes) -> int:
        """Send a request to all processes, and return its number."""
        self._start()
        while self._busy:  # a stream that was given up
            self._take(NO_REQUEST)
        number = next(self._numbers)
        request = pickle.dumps(Request(number, kind))
        for rank, connection in enumerate(self._connections, start=1):
            try:
                connection.send_bytes(request)
                connection.send_bytes(content)
            except OSError as error:
                raise self._ended(rank) from error
            self._busy[rank] = number
        return number

    @contextmanager
    def _failures_of_others(self, number: int) -> Iterator[None]:
        """Raise the error of the device that failed instead of `PeerFailed`."""
        try:
            yield
        except PeerFailed:
            self._finish(number)
            raise
        except Exception:
            raise
        except BaseException:  # such as Ctrl-C: the others would wait for this device
            self.close()
            raise

    def _finish(self, number: int) -> None:
        """Wait for the last reply of every process."""
        while self._busy:
            self._take(number)

    def _items(self, number: int, *, block: bool) -> Iterator[Any]:
        """Yield the items that have arrived, or all further ones if `block`."""
        while self._busy if block else not self._replies.empty():
            reply = self._take(number)
            if reply.kind == "item" and reply.number == number:
                yield loads(reply.content)

    def _take(self, number: int) -> Reply:
        """Wait for a reply and return it; raise the error that it reports about request `number`.

        Raises:
            UserError: a process has ended.
        """
        rank, reply = self._replies.get()
        if reply is None:
            raise self._ended(rank)
        if reply.kind != "item":
            self._busy.pop(rank, None)
        for note in reply.notes:
            _warn(*note)
        if reply.kind == "error" and reply.number == number:
            raise loads(reply.content)
        return reply

    def _ended(self, rank: int) -> UserError:
        """Close the group, and return an error about the process of device `rank`."""
        try:
            code: object = self._processes[rank - 1].wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = "none"
        self.close()
        return UserError(
            f"devices={self.size}: the process of {self._devices[rank]} ended unexpectedly "
            f"(exit code {code}), perhaps for lack of memory; start again, or use fewer devices"
        )

    def _start(self) -> None:
        """Start the processes, connect them and copy the model, unless that is done."""
        if self._peers is not None:
            return
        if self._closed:
            raise UserError(f"devices={self.size}: the processes of the devices have ended")
        begin = time.perf_counter()
        cuda = self._devices[0].type == "cuda"
        copy = ModelCopy(self._model)
        self._store = make_store(self.size)
        for rank in range(1, self.size):
            self._spawn(rank, cuda)
        arguments = (tuple(self._connections),)
        self._reader = threading.Thread(
            target=self._read, args=arguments, name="group reader", daemon=True
        )
        self._reader.start()
        self._await_replies()
        self._peers = Connected(self._store, 0, self.size, cuda=cuda)
        self.seconds["start"] = time.perf_counter() - begin
        for connection in self._connections:
            connection.send_bytes(copy.packed())
        copy.broadcast(self._peers)
        self._await_replies()
        self._copy = copy
        self.seconds["copy"] = time.perf_counter() - begin - self.seconds["start"]

    def _spawn(self, rank: int, cuda: bool) -> None:
        ours, theirs = Pipe()
        environment = dict(os.environ)
        if cuda:  # the device is the only one that its process sees, as on a machine with one GPU
            environment["CUDA_VISIBLE_DEVICES"] = _visible(self._devices[rank])
        path = json.dumps([os.path.abspath(folder) for folder in sys.path])
        command = [sys.executable, "-c", BOOT, str(theirs.fileno()), path]
        worker = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._processes.append(worker)
        self._connections.append(ours)
        setup = Setup(
            rank,
            self.size,
            self._store.port,
            cuda,
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            bytes(process.current_process().authkey),
        )
        with suppress(OSError):  # the end of the process is noticed by `_read`
            ours.send_bytes(pickle.dumps(setup))

    def _await_replies(self) -> None:
        self._busy = dict.fromkeys(range(1, self.size), 0)
        try:
            self._finish(0)
        except BaseException:
            self.close()
            raise

    def _read(self, connections: Sequence[Connection]) -> None:
        """Queue the replies of all processes, so that none of them waits for the first device."""
        ranks = {id(connection): rank for rank, connection in enumerate(connections, start=1)}
        remaining = list(connections)
        while remaining:
            for ready in wait(remaining):
                assert isinstance(ready, Connection)
                try:
                    reply = pickle.loads(ready.recv_bytes())
                except (EOFError, OSError):
                    remaining.remove(ready)
                    reply = None
                    if self._peers is not None and not self._closed:
                        self._peers.abort()
                self._replies.put((ranks[id(ready)], reply))


def _visible(device: torch.device) -> str:
    """Return the entry of ``CUDA_VISIBLE_DEVICES`` for a device of this process."""
    index = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index].strip() if visible else str(index)


def _warn(category: type[Warning], text: str, file: str, line: int) -> None:
    """Repeat a warning of another process, which Python shows once for the same line and text."""
    modules = (vars(module) for module in list(sys.modules.values()) if module is not None)
    owner: dict[str, Any] = next((m for m in modules if m.get("__file__") == file), {})
    registry = owner.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, category, file, line, registry=registry)


class Replicated(Resident):
    """Keeps all weights on the device; a group of further devices holds copies of them."""

    def __init__(self, model: PreTrainedModel, group: DeviceGroup) -> None:
        super().__init__(model)
        self.group = group


def group_of(model: PreTrainedModel) -> DeviceGroup | None:
    """Return the group of devices that hold `model`; None: only its own device does."""
    placement = placement_of(model)
    return placement.group if isinstance(placement, Replicated) else None


@contextmanager
def replicated(model: PreTrainedModel, devices: Sequence[torch.device]) -> Iterator[None]:
    """Let several devices work on `model` inside the context; its own device is the first."""
    if len(devices) < 2:
        yield
        return
    group = DeviceGroup(model, devices)
    set_placement(model, Replicated(model, group))
    try:
        yield
    finally:
        set_placement(model, None)
        group.close()


def copy_to_all(model: PreTrainedModel) -> None:
    """Copy the weights of `model` to its other devices, after they were changed on its own."""
    group = group_of(model)
    if group is not None:
        group.refresh()


def together(
    decoder: DecoderModel,
    function: Callable[..., Any],
    *args: Any,
    progress: Progress,
    **kwargs: Any,
) -> Any:
    """Return ``function(decoder, *args, progress=progress, **kwargs)``, run by all devices."""
    group = group_of(decoder.model)
    if group is None:
        return function(decoder, *args, progress=progress, **kwargs)
    return group.run(function, decoder, args, kwargs, progress)
