"""Start and end the processes of further devices, and receive what they send."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue

import torch

from neuroal.parallel.worker import BOOT, Reply, Setup


class Processes:
    """One process for each of several devices.

    Args:
        on_end: called when a process has ended, from a thread.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._workers: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._replies: SimpleQueue[tuple[int, Reply | None]] = SimpleQueue()
        self._reader: threading.Thread | None = None

    @property
    def numbers(self) -> list[int]:
        """Process numbers, by device."""
        return [worker.pid for worker in self._workers]

    def start(self, devices: Sequence[torch.device], setups: Sequence[Setup]) -> None:
        """Start a process for each of `devices`, and give it its setup."""
        for device, setup in zip(devices, setups, strict=True):
            self._spawn(device, setup)
        self._reader = threading.Thread(target=self._read, name="group reader", daemon=True)
        self._reader.start()

    def _spawn(self, device: torch.device, setup: Setup) -> None:
        ours, theirs = Pipe()
        environment = dict(os.environ)
        if device.type == "cuda":  # its process sees only this device, as on a machine with one GPU
            environment["CUDA_VISIBLE_DEVICES"] = visible(device)
        path = json.dumps([os.path.abspath(folder) for folder in sys.path])
        command = [sys.executable, "-c", BOOT, str(theirs.fileno()), path]
        worker = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._workers.append(worker)
        self._connections.append(ours)
        with suppress(OSError):  # `receive` reports that the process has ended
            ours.send_bytes(pickle.dumps(setup))

    def send(self, index: int, *messages: bytes) -> None:
        """Send messages to process `index`; if it has ended, `receive` reports that."""
        with suppress(OSError):
            for message in messages:
                self._connections[index].send_bytes(message)

    def receive(self) -> tuple[int, Reply | None]:
        """Wait for a reply of any process; return its index, and None if it has ended."""
        return self._replies.get()

    @property
    def silent(self) -> bool:
        """Whether no reply is waiting."""
        return self._replies.empty()

    def first_ended(self) -> int | None:
        """Return the index of a process that has ended; None: all of them are alive."""
        ended = (i for i, worker in enumerate(self._workers) if worker.poll() is not None)
        return next(ended, None)

    def exit_code(self, index: int) -> int | None:
        """Return the exit code of a process that has closed its connection."""
        try:
            return self._workers[index].wait(timeout=5)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
        if self._reader is not None:
            self._reader.join()  # it reads the end of all connections
        for connection in self._connections:
            connection.close()
        self._workers, self._connections, self._reader = [], [], None

    def _read(self) -> None:
        """Queue the replies of all processes, so that none of them waits for the first device."""
        indices = {id(connection): index for index, connection in enumerate(self._connections)}
        remaining = list(self._connections)
        while remaining:
            for ready in wait(remaining):
                assert isinstance(ready, Connection)
                try:
                    reply = pickle.loads(ready.recv_bytes())
                except (EOFError, OSError):
                    remaining.remove(ready)
                    reply = None
                    self._on_end()
                self._replies.put((indices[id(ready)], reply))


def visible(device: torch.device) -> str:
    """Return the entry of ``CUDA_VISIBLE_DEVICES`` for a device of this process."""
    index = device.index or 0
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[index].strip() if names else str(index)
