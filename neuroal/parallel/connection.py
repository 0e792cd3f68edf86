"""The connection of a device to the others, by `torch.distributed`.

Gloo, which works between processors, carries everything that is in host memory, and NCCL what is on
GPUs. Both move bytes only. Sums are computed by the receiver, in a fixed order.

The process groups are objects of their own: they are not registered as the default group of
`torch.distributed`, which a caller of this package may use.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from neuroal.parallel.peers import Event, PeerFailed, PeerOutOfMemory, Peers

c10d: Any = torch.distributed  # its type stubs lack names of its documentation

HOST = "127.0.0.1"
LONGEST = timedelta(days=7)
"""Longest wait for another device. A device that ends closes its connections, which is noticed."""


def make_store(size: int) -> Any:
    """Return the store by which `size` devices of this machine find each other, at a free port."""
    return c10d.TCPStore(HOST, 0, size, True, LONGEST, wait_for_workers=False)


def join_store(port: int, size: int) -> Any:
    """Return the store at `port`, which another process made."""
    return c10d.TCPStore(HOST, port, size, False, LONGEST)


class Connected(Peers):
    """A device that is connected to the others.

    Args:
        store: the common store.
        rank: number of this device.
        size: number of devices.
        cuda: whether the devices are GPUs.
    """

    def __init__(self, store: Any, rank: int, size: int, *, cuda: bool) -> None:
        self.rank, self.size = rank, size
        options = c10d.ProcessGroupGloo._Options()
        options._timeout = LONGEST
        options._devices = [c10d.ProcessGroupGloo.create_device(hostname=HOST)]
        self._hosts: Any = c10d.ProcessGroupGloo(
            c10d.PrefixStore("gloo", store), rank, size, options
        )
        self._gpus: Any = None
        self._aborted = False
        if cuda:
            # By default a thread of PyTorch ends the whole process after an error of NCCL. Here the
            # end of a device is noticed by its closed connection, and reported.
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
            settings = c10d.ProcessGroupNCCL.Options()
            settings._timeout = LONGEST
            self._gpus = c10d.ProcessGroupNCCL(
                c10d.PrefixStore("nccl", store), rank, size, settings
            )

    def meet(self, event: Event = Event.READY) -> None:
        state = torch.tensor([int(event)])
        try:
            self._hosts.allreduce([state], c10d.ReduceOp.MAX).wait()
        except RuntimeError as error:
            raise PeerFailed(str(error)) from error
        if int(state) > event:
            raise PeerFailed if int(state) == Event.FAILED else PeerOutOfMemory

    def all_of(self, tensor: Tensor) -> Tensor:
        own = _bytes(tensor)
        received = own.new_empty(self.size * len(own))
        self._move(own, "_allgather_base", received, own)
        return received.view(tensor.dtype).view(self.size, *tensor.shape)

    def exchanged(self, tensor: Tensor) -> Tensor:
        own = _bytes(tensor)
        received = torch.empty_like(own)
        self._move(own, "alltoall_base", received, own, [], [])
        shape = self.size, len(tensor) // self.size, *tensor.shape[1:]
        return received.view(tensor.dtype).view(shape)

    def receive(self, tensor: Tensor, source: int) -> None:
        own = _bytes(tensor)
        self._move(own, "broadcast", own, source)
        if own.data_ptr() != tensor.data_ptr():
            tensor.copy_(own.view(tensor.dtype).view(tensor.shape))

    def abort(self) -> None:
        """End exchanges between GPUs, also those that wait for a device that no longer exists."""
        if self._gpus is not None and not self._aborted:
            self._aborted = True
            self._gpus.abort()

    def _move(self, moved: Tensor, name: str, *arguments: Any) -> None:
        if not moved.numel():
            return
        group = self._gpus if moved.is_cuda else self._hosts
        try:
            getattr(group, name)(*arguments).wait()
        except RuntimeError as error:
            raise PeerFailed(str(error)) from error


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of `tensor` as one vector, which shares its memory if it is contiguous."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
