"""Mistakes in what a method returns: reported in one line that names the method and the linear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from neuroal.errors import UserError


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
