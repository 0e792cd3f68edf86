"""Check that the weights of a model are finite."""

from __future__ import annotations

from typing import Any

import torch

from neuroal.errors import UserError
from neuroal.kernels.async_copy import HostCopy
from neuroal.models.offload import weights_of


@torch.no_grad()
def check_finite(model: Any) -> None:
    """Raise `UserError` if a parameter of `model` contains NaN or infinity."""
    # Queue all checks before reading a result, so that a GPU is synchronised only at the end.
    parameters = {name for name, _ in model.named_parameters()}
    flags = [
        (name, HostCopy(torch.isfinite(weight).all()))
        for name, weight in weights_of(model)
        if name in parameters
    ]
    for name, finite in flags:
        if not finite.get():
            raise UserError(
                f"model: '{name}' contains NaN or infinity; use another checkpoint or model.dtype"
            )
