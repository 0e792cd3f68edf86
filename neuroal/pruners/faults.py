"""Mistakes in what a method returns: reported in one line that names the method and the linear."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from neuroal.errors import FULL_ERROR, UserError, first_line
from neuroal.files.gpu_errors import is_memory_error
from neuroal.parallel.peers import PeerFailed
from neuroal.pruners.method import Method

PACKAGE = __name__.partition(".")[0]


class MethodFault(UserError):
    """A method cannot prune a linear, or returned what cannot be used.

    Attributes:
        setting: the method, as in ``pruner=wanda``.
        problem: what is wrong, and the remedy.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting, self.problem = setting, problem


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Add the name of the linear `key` to a `MethodFault` that is raised inside."""
    try:
        yield
    except MethodFault as fault:
        raise UserError(f"{fault.setting}: '{key}': {fault.problem}") from fault


@contextmanager
def faults_of(method: Method, weight: Tensor | None = None) -> Iterator[None]:
    """Raise an error inside a user's own `method` as `MethodFault`.

    Errors of the package's methods, and those for lack of memory, stay as they are.

    Args:
        method: the method that runs inside the context.
        weight: the weight of a linear that it works on; None: it works on the whole model.
    """
    try:
        yield
    except (UserError, PeerFailed):
        raise
    except Exception as error:
        if is_of_package(method) or is_memory_error(error):
            raise
        shape = "" if weight is None else f", on a weight of shape {tuple(weight.shape)}"
        problem = f"{type(error).__name__}: {first_line(error) or 'no message'}"
        raise MethodFault(
            method.setting,
            f"{problem} ({_place(method, error)}{shape}); {FULL_ERROR}=1 prints the traceback",
        ) from error


def is_of_package(method: Method) -> bool:
    """Return whether `method` is one of this package, not a user's own."""
    return type(method).__module__.partition(".")[0] == PACKAGE


def _place(method: Method, error: Exception) -> str:
    """Return the last line of the module of `method` that `error` passed through."""
    file = inspect.getsourcefile(type(method)) or ""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"line {lines[-1]} of " if lines else ""
    return f"{where}{Path(file).name or type(method).__name__}"


def check_tensor(setting: str, what: str, values: object, like: Tensor | torch.Size) -> None:
    """Raise `MethodFault` unless `values` is a tensor with the shape, and the device, of `like`."""
    shape = like.shape if isinstance(like, Tensor) else like
    if not isinstance(values, Tensor):
        problem = f"is a {type(values).__name__}; must be a tensor"
    elif values.shape != shape:
        problem = f"has the shape {tuple(values.shape)}; must be"
    elif isinstance(like, Tensor) and values.device != like.device:
        problem = f"is on {values.device}; must be on {like.device}, of shape"
    else:
        return
    raise MethodFault(setting, f"the {what} {problem} {tuple(shape)}")


def hessian_fault(setting: str, damping: float, hessian: Tensor) -> MethodFault:
    """Return the reason why the damped `hessian` (cols, cols) of a linear has no Cholesky factor.

    Args:
        setting: the method, as in ``pruner=sparsegpt``.
        damping: its ``pruner.damping``.
        hessian: the damped Hessian.
    """
    if not bool(torch.isfinite(hessian).all()):
        return MethodFault(
            setting,
            "the products of its inputs are NaN or infinite, because the inputs overflow; try "
            "model.dtype=bfloat16 or float32",
        )
    return MethodFault(
        f"pruner.damping={damping}",
        "the Hessian of its inputs is not positive definite; increase pruner.damping or "
        "calibration.windows",
    )
