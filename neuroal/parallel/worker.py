"""The process of one further device: it holds the model and does what the first process sends."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import process
from multiprocessing.connection import Connection
from typing import Any

import torch

from neuroal.errors import UserError, first_line
from neuroal.models.adapter import DecoderModel
from neuroal.models.selection import Selection
from neuroal.parallel.connection import Connected, join_store
from neuroal.parallel.peers import ALONE, Event, PeerFailed, Peers
from neuroal.parallel.transfer import dumps, loads, receive_model, refresh
from neuroal.tracking.progress import QuietProgress

CANCELLED = 2**40
"""Index of a piece of work that no stream has."""
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from neuroal.parallel.worker import main; main(int(sys.argv[1]))"
)
"""Code of a new process. It imports this module and not the script that the user has started, so
that a script needs no ``if __name__ == "__main__"``."""


@dataclass(frozen=True)
class Setup:
    """What a new process needs to connect to the others and to compute as the first one does.

    Attributes:
        threads: number of threads of PyTorch. With GPUs it is that of the first process divided by
            their number. Without, it is not divided, since the last bits of a sum on a CPU depend
            on it.
        precision: precision of float32 products (``torch.get_float32_matmul_precision``).
        key: authentication key for shared memory.
    """

    rank: int
    size: int
    port: int
    cuda: bool
    threads: int
    precision: str
    key: bytes


@dataclass(frozen=True)
class Reply:
    """A message to the first process.

    Attributes:
        number: number of the request; 0 at the start.
        kind: ``item`` (of a stream), or the last message of a request: ``done``, ``error``, or
            ``stopped`` because of the failure of another device.
        content: the item, or the error.
        notes: category, text, file and line of warnings.
    """

    number: int
    kind: str
    content: bytes = b""
    notes: tuple[tuple[type[Warning], str, str, int], ...] = ()


@dataclass(frozen=True)
class Request:
    """A message to a further process, followed by the pickled arguments.

    Attributes:
        kind: ``run`` (all devices together), ``stream`` and ``call`` (each device alone), or
            ``refresh`` (of the weights on GPUs).
    """

    number: int
    kind: str


def guarded(peers: Peers, work: Callable[[], Any]) -> Any:
    """Return ``work()`` after all devices have finished theirs; a failure ends it on all devices.

    Raises:
        PeerFailed: another device failed first.
    """
    try:
        result = work()
    except PeerFailed:
        raise
    except Exception:
        with suppress(PeerFailed):  # the connection is lost as well: the first error is the cause
            peers.meet(Event.FAILED)
        raise
    peers.meet()
    return result


class _Worker:
    """The model of one device, and the requests about it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        setup: Setup = pickle.loads(connection.recv_bytes())
        process.current_process().authkey = setup.key
        torch.set_num_threads(setup.threads)
        torch.set_float32_matmul_precision(setup.precision)
        device = torch.device("cuda:0" if setup.cuda else "cpu")
        if setup.cuda:
            torch.cuda.init()
        self._send(Reply(0, "done"))
        self._store = join_store(setup.port, setup.size)
        self._peers = Connected(self._store, setup.rank, setup.size, cuda=setup.cuda)
        data = connection.recv_bytes()
        self._model, self._tensors = receive_model(data, device, self._peers)
        self._decoders: dict[Selection, DecoderModel] = {}
        self._send(Reply(0, "done"))

    def _send(self, reply: Reply) -> None:
        self._connection.send_bytes(pickle.dumps(reply))

    def _decoder(self, selection: Selection, peers: Peers) -> DecoderModel:
        if selection not in self._decoders:
            patterns = selection.include, selection.exclude
            self._decoders[selection] = DecoderModel(self._model, *patterns)
        decoder = self._decoders[selection]
        decoder.peers = peers
        return decoder

    def serve(self) -> None:
        """Do requests until the first process closes the connection."""
        while True:
            request: Request = pickle.loads(self._connection.recv_bytes())
            data = self._connection.recv_bytes()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                kind, content = self._outcome(request, data)
            if kind == "error":
                self._free_memory()
            notes = tuple((w.category, str(w.message), w.filename, w.lineno) for w in caught)
            self._send(Reply(request.number, kind, content, notes))

    def _free_memory(self) -> None:
        """Free what a failed request has left, so that it can be repeated on smaller batches."""
        for decoder in self._decoders.values():
            decoder.memo.pop("stream", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _outcome(self, request: Request, data: bytes) -> tuple[str, bytes]:
        try:
            if request.kind == "stream":
                self._stream(request.number, data)
            elif request.kind == "call":
                self._call(data)
            elif request.kind == "refresh":
                guarded(self._peers, lambda: refresh(self._tensors, self._peers))
            else:
                guarded(self._peers, lambda: self._run(data))
        except PeerFailed:
            return "stopped", b""
        except Exception as error:
            return "error", packed_error(error)
        return "done", b""

    def _run(self, data: bytes) -> None:
        function, selection, args, kwargs = loads(data)
        for decoder in self._decoders.values():
            decoder.memo.pop("stream", None)
        decoder = self._decoder(selection, self._peers)
        try:
            function(decoder, *args, progress=QuietProgress(), **kwargs)
        finally:
            decoder.peers = ALONE

    def _stream(self, number: int, data: bytes) -> None:
        function, selection, args = loads(data)
        decoder = self._decoder(selection, ALONE)
        for item in function(decoder, claims(self._store, number), *args):
            self._send(Reply(number, "item", dumps(item)))

    def _call(self, data: bytes) -> None:
        function, selection, args = loads(data)
        function(self._decoder(selection, ALONE), *args)


def claims(store: Any, number: int) -> Callable[[], int]:
    """Return a function that takes the next piece of work of stream `number`: an index from 0."""
    return lambda: int(store.add(f"stream {number}", 1)) - 1


def cancel(store: Any, number: int) -> None:
    """Let no device take a further piece of work of stream `number`."""
    store.add(f"stream {number}", CANCELLED)


def packed_error(error: Exception) -> bytes:
    """Return `error` as bytes; one that cannot be sent becomes an error with the same text."""
    if not isinstance(error, UserError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        data = dumps(error)
        loads(data)
    except Exception:
        plain: type[Exception] = UserError if isinstance(error, UserError) else RuntimeError
        text = str(error) if plain is UserError else f"{type(error).__name__}: {first_line(error)}"
        data = dumps(plain(text))
    return data


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """End this process within a second after its parent ended, whatever it is doing."""
    parent = os.getppid()

    def watch() -> None:
        for _ in itertools.count():
            if os.getppid() != parent:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    yield


def main(descriptor: int) -> None:
    """Serve the process at the other end of the connection with this file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    with ending_with_parent(), Connection(descriptor) as connection:
        try:
            _Worker(connection).serve()
        except (EOFError, BrokenPipeError, ConnectionResetError, PeerFailed):
            sys.exit(0)  # the first process has ended, or does without this device
        except Exception as error:
            connection.send_bytes(pickle.dumps(Reply(0, "error", packed_error(error))))
            sys.exit(1)
