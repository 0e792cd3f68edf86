"""Fisher information of the weights of linears, from inputs and output gradients.

With x the input and δ the gradient at the output of a linear, the gradient of one token at the
weight W_rc is δ_r·x_c. So F_rc = mean over tokens of δ_r²·x_c² needs no gradient of a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from neuroal.errors import UserError
from neuroal.kernels.score_terms import ScoreTerms
from neuroal.models.adapter import PrunableLinear

FORMS = ("elementwise", "factored")


class Information(Protocol):
    """The Fisher information of one linear, stored compactly."""

    def terms(self) -> ScoreTerms:
        """Return the terms of scores that order weights by the cost of zeroing them, W²·F."""

    def values(self) -> Tensor:
        """Return F (rows, cols) float32."""

    def joined(self, past: Information, share: float) -> Information:
        """Return the mean of `past`, with weight `share`, and this information."""

    def to(self, device: torch.device) -> Information:
        """Return a copy on `device`."""


@dataclass(frozen=True, eq=False)
class Elementwise:
    """F_rc = mean over tokens of δ_r²·x_c².

    Attributes:
        shares: F divided by `scale`, (rows, cols) bfloat16.
        scale: the largest F, () float32.
    """

    shares: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Elementwise:
        """Store `values` (rows, cols) float32."""
        scale = values.max().clamp(min=torch.finfo(torch.float32).tiny)
        return cls((values / scale).bfloat16(), scale)

    def terms(self) -> ScoreTerms:
        return ScoreTerms(shares=self.shares, scale=self.scale)

    def values(self) -> Tensor:
        return self.shares.float().mul_(self.scale)

    def joined(self, past: Information, share: float) -> Elementwise:
        return Elementwise.of(past.values().mul_(share).add_(self.values(), alpha=1 - share))

    def to(self, device: torch.device) -> Elementwise:
        return Elementwise(self.shares.to(device), self.scale.to(device))


@dataclass(frozen=True, eq=False)
class Factored:
    """F_rc ≈ (mean δ_r²)^p·(mean x_c²), with exponent p.

    Attributes:
        outputs: mean over tokens of δ², (rows,) float32.
        inputs: mean over tokens of x², (cols,) float32.
        exponent: p; 1 for the Fisher information.
    """

    outputs: Tensor
    inputs: Tensor
    exponent: float

    def terms(self) -> ScoreTerms:
        return ScoreTerms(rows=self.outputs.pow(self.exponent / 2), cols=self.inputs.sqrt())

    def values(self) -> Tensor:
        return self.outputs.pow(self.exponent)[:, None] * self.inputs

    def joined(self, past: Information, share: float) -> Factored:
        assert isinstance(past, Factored)
        return Factored(
            share * past.outputs + (1 - share) * self.outputs,
            share * past.inputs + (1 - share) * self.inputs,
            self.exponent,
        )

    def to(self, device: torch.device) -> Factored:
        return Factored(self.outputs.to(device), self.inputs.to(device), self.exponent)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Which tokens of a batch the input of a linear holds.

    Attributes:
        seqlen: tokens of a window.
        positions: their indices in the batch; None: all tokens in order, or unknown ones if their
            number is no multiple of `seqlen`.
    """

    seqlen: int
    positions: Tensor | None = None


class Collector:
    """Sums over tokens that become the `Information` of the linears of one block.

    Args:
        form: ``elementwise`` or ``factored``.
        exponent: p of `Factored`.
        skip: number of leading positions of every window to leave out.
    """

    def __init__(self, form: str, exponent: float, skip: int) -> None:
        self._form, self._exponent, self._skip = form, exponent, skip
        self._sums: dict[str, tuple[Tensor, ...]] = {}
        self._squared: tuple[Tensor, Tensor] | None = None

    def see(self, key: str, tokens: Tokens, x: Tensor, gradient: Tensor) -> None:
        """Add the input x and the output gradient of linear `key` on a batch of `tokens`."""
        outputs = _squares(gradient, tokens, self._skip)
        # Linears with one input (q, k and v; gate and up) share its squares.
        if self._squared is None or self._squared[0] is not x:
            self._squared = x, _squares(x, tokens, self._skip)
        inputs = self._squared[1]
        if self._form == "factored":
            parts: tuple[Tensor, ...] = tuple(
                part.sum(0, dtype=torch.float32) for part in (outputs, inputs)
            )
        else:
            parts = (_product(outputs, inputs),)
        if key in self._sums:
            for total, part in zip(self._sums[key], parts, strict=True):
                total += part
        else:
            self._sums[key] = parts

    def finish(self, linears: Sequence[PrunableLinear], tokens: int) -> dict[str, Information]:
        """Return the information of `linears` by key, as means over `tokens` tokens, and forget it.

        Raises:
            UserError: a gradient overflowed.
        """
        sums, self._sums, self._squared = self._sums, {}, None
        checks = [torch.isfinite(part).all() for parts in sums.values() for part in parts]
        if checks and not bool(torch.stack(checks).all()):
            raise UserError(
                "topup: the gradients of the output are not finite; use model.dtype=bfloat16 "
                "or float32"
            )
        information: dict[str, Information] = {}
        for linear in linears:
            zeros = torch.zeros_like(linear.weight, dtype=torch.float32)
            if self._form == "factored":
                outputs, inputs = sums.get(linear.key) or (zeros[:, 0], zeros[0])
                information[linear.key] = Factored(
                    outputs / tokens, inputs / tokens, self._exponent
                )
            else:
                (product,) = sums.get(linear.key) or (zeros,)
                information[linear.key] = Elementwise.of(product / tokens)
        return information


@contextmanager
def collecting(
    linears: Sequence[PrunableLinear], collector: Collector, seqlen: int
) -> Iterator[None]:
    """Feed `collector` from backward passes, for forward passes on windows of `seqlen` tokens."""

    def hook(key: str) -> Any:
        def see(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # The whole input, not a detached copy, so that linears with one input share it.
            x, tokens = inputs[0], Tokens(seqlen, *inputs[1:])
            if output.requires_grad:
                output.register_hook(lambda gradient: collector.see(key, tokens, x, gradient))

        return see

    with ExitStack() as stack:
        for linear in linears:
            handle = linear.module.register_forward_hook(hook(linear.key))
            stack.callback(handle.remove)
        yield


def _squares(x: Tensor, tokens: Tokens, skip: int) -> Tensor:
    """Return x² without the first `skip` positions of the windows: (tokens, features).

    A GPU gets bfloat16 squares of 16-bit tensors, which have the range of float32.
    """
    count = x.shape[:-1].numel()
    if tokens.positions is not None:
        x = x[tokens.positions % tokens.seqlen >= skip]
    elif count % tokens.seqlen:
        x = x.reshape(count, -1)
    else:
        x = x.reshape(count // tokens.seqlen, tokens.seqlen, -1)[:, skip:].flatten(0, 1)
    if not x.is_cuda or x.dtype == torch.float32:
        return x.float().square()
    return x.square() if x.dtype == torch.bfloat16 else x.float().square_().bfloat16()


def _product(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Return outputsᵀ·inputs in float32: (tokens, rows), (tokens, cols) → (rows, cols)."""
    if outputs.dtype == torch.bfloat16:
        return torch.mm(outputs.T, inputs, out_dtype=torch.float32)
    return outputs.T @ inputs
