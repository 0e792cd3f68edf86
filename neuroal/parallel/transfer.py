"""Send objects and models to other processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

import torch
import torch.multiprocessing  # lets `ForkingPickler` pass tensors in shared memory
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.errors import UserError, first_line
from neuroal.parallel.peers import Peers
from neuroal.placement.base import Placement

WITHOUT_PLACEMENT = -1
"""Number that replaces the placement of a model, which is not sent."""


class _Pickler(pickle.Pickler):
    """Pickles tensors by value, for a receiver that has them on its CPU."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            data = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            return _tensor, (data.numpy().tobytes(), obj.dtype, tuple(obj.shape))
        if isinstance(obj, type | FunctionType) and obj.__module__ == "__main__":
            raise UserError(
                f"devices: {obj.__qualname__} is defined in the script itself, which the "
                "processes of other devices do not run; move it to a module, or use devices=1"
            )
        return NotImplemented


def _tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)


class _ModelPickler(_Pickler):
    """Pickles the structure of a model, and collects its tensors instead of pickling them."""

    def __init__(self, buffer: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(buffer, protocol=5)
        self._tensors, self._numbers = tensors, dict[int, int]()

    def persistent_id(self, obj: Any) -> int | None:
        if isinstance(obj, Placement):
            return WITHOUT_PLACEMENT
        if not isinstance(obj, Tensor):
            return None
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self._tensors)
            self._tensors.append(obj)
        return self._numbers[id(obj)]


class _ModelUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: Sequence[Tensor]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, number: int) -> Tensor | None:
        return None if number == WITHOUT_PLACEMENT else self._tensors[number]


@contextmanager
def _sending(what: str) -> Iterator[None]:
    """Raise an error of `pickle` as one line about `what`."""
    try:
        yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"devices: {what} cannot be sent to the processes of other devices "
            f"({first_line(error)}); use devices=1"
        ) from error


def dumps(value: object) -> bytes:
    """Return `value` as bytes for `loads` in another process.

    Raises:
        UserError: `value` contains an object that cannot be sent, such as a class of the script.
    """
    buffer = io.BytesIO()
    with _sending("an object"):
        _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def loads(data: bytes) -> Any:
    """Return the value of `dumps`; its tensors are on the CPU."""
    return pickle.loads(data)


@dataclass(frozen=True)
class Form:
    """Shape, dtype and kind of a tensor of a model.

    Attributes:
        on_gpu: whether it is on a GPU and therefore broadcast.
        parameter: whether it is a parameter, and whether it requires a gradient; None: a buffer.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    on_gpu: bool
    parameter: bool | None


class ModelCopy:
    """Sends a model to other processes: the structure, and apart from it the tensors.

    Tensors in host memory are moved to shared memory, where all processes use them. Tensors on a
    GPU are broadcast from there to the other GPUs, without a copy in host memory.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._tensors: list[Tensor] = []
        buffer = io.BytesIO()
        with _sending("the model"):
            _ModelPickler(buffer, self._tensors).dump(model)
        self._skeleton = buffer.getvalue()

    def packed(self) -> bytes:
        """Return all that is sent to one process but the tensors on GPUs.

        Raises:
            UserError: the tensors in host memory do not fit into shared memory.
        """
        shared = [tensor.data for tensor in self._tensors if not tensor.is_cuda]
        forms = [_form(tensor) for tensor in self._tensors]
        try:
            handles = bytes(ForkingPickler.dumps(shared))
        except RuntimeError as error:
            raise UserError(
                f"devices: the model does not fit into shared memory ({first_line(error)}); "
                "enlarge /dev/shm, or use devices=1"
            ) from error
        return pickle.dumps((self._skeleton, forms, handles))

    def broadcast(self, peers: Peers) -> None:
        """Send the tensors on GPUs; each other process calls `receive_model` or `refresh`."""
        _broadcast(self._tensors, peers)


def _form(tensor: Tensor) -> Form:
    parameter = tensor.requires_grad if isinstance(tensor, nn.Parameter) else None
    return Form(tuple(tensor.shape), tensor.dtype, tensor.is_cuda, parameter)


def receive_model(
    data: bytes, device: torch.device, peers: Peers
) -> tuple[PreTrainedModel, Sequence[Tensor]]:
    """Return a model from `ModelCopy.packed`, on `device`, and its tensors in the sent order."""
    skeleton, forms, shared = pickle.loads(data)
    hosted = iter(pickle.loads(shared))
    tensors: list[Tensor] = []
    for form in forms:
        empty = torch.empty(form.shape, dtype=form.dtype, device=device) if form.on_gpu else None
        tensor = next(hosted) if empty is None else empty
        tensors.append(
            tensor if form.parameter is None else nn.Parameter(tensor, requires_grad=form.parameter)
        )

    model: PreTrainedModel = _ModelUnpickler(skeleton, tensors).load()
    _broadcast(tensors, peers)
    return model, tensors


def refresh(tensors: Sequence[Tensor], peers: Peers) -> None:
    """Receive the tensors on GPUs again, after the first device has changed them."""
    _broadcast(tensors, peers)


@torch.no_grad()
def _broadcast(tensors: Sequence[Tensor], peers: Peers) -> None:
    for tensor in tensors:
        if tensor.is_cuda:
            peers.receive(tensor.data, 0)
