"""Fisher information of the weights of linears, from inputs and output gradients.

With x the input and δ the gradient at the output of a linear, the gradient of one token at the
weight W_rc is δ_r·x_c. So F_rc = mean over tokens of δ_r²·x_c² needs no gradient of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from neuroal.execution.compiled_gradients import Reduction
from neuroal.gradients.backward import Sums
from neuroal.kernels.score_terms import ScoreTerms
from neuroal.models.adapter import PrunableLinear
from neuroal.parallel.peers import Share

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
        entries: F (rows, cols) bfloat16, which has the range of float32.
    """

    entries: Tensor

    def terms(self) -> ScoreTerms:
        return ScoreTerms(entries=self.entries)

    def values(self) -> Tensor:
        return self.entries.float()

    def joined(self, past: Information, share: float) -> Elementwise:
        assert isinstance(past, Elementwise)
        return Elementwise(torch.lerp(past.entries, self.entries, 1 - share))

    def to(self, device: torch.device) -> Elementwise:
        return Elementwise(self.entries.to(device))


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
            past.outputs.mul(share).add_(self.outputs, alpha=1 - share),
            past.inputs.mul(share).add_(self.inputs, alpha=1 - share),
            self.exponent,
        )

    def to(self, device: torch.device) -> Factored:
        return Factored(self.outputs.to(device), self.inputs.to(device), self.exponent)


def reduction(form: str, skip: int) -> Reduction:
    """Return the sums over tokens that `information` takes, without the first `skip` positions."""
    return Reduction(_factored_sums if form == "factored" else _elementwise_sums, skip)


def completed(sums: Sums, linears: Sequence[PrunableLinear], form: str) -> Sums:
    """Return the sums of `linears`, with zeros for those that no token reached."""
    return {linear.key: sums.get(linear.key) or _zeros(linear, form) for linear in linears}


def _zeros(linear: PrunableLinear, form: str) -> tuple[Tensor, ...]:
    zeros = torch.zeros_like(linear.weight, dtype=torch.float32)
    return (zeros[:, 0], zeros[0]) if form == "factored" else (zeros,)


def elementwise(sums: Sums, tokens: int, share: Share) -> tuple[dict[str, Information], Tensor]:
    """Return the information of linears by key, and whether it is finite: () bool.

    Args:
        sums: Σ δ²·x² over the tokens of this device, by linear.
        tokens: number of tokens of all devices.
        share: joins the sums of all devices.
    """
    parts = [part for (part,) in sums.values()]
    own = [share.row_sums([part])[0].div_(tokens).bfloat16() for part in parts]
    entries = share.joined_rows(own, [len(part) for part in parts])
    finite = torch.stack([part.amax() for part in entries]).isfinite().all()
    return {key: Elementwise(part) for key, part in zip(sums, entries, strict=True)}, finite


def factored(
    sums: Sums, tokens: int, share: Share, exponent: float
) -> tuple[dict[str, Information], Tensor]:
    """Return the information of linears by key, and whether it is finite; see `elementwise`.

    Args:
        sums: Σ δ² and Σ x² over the tokens of this device, by linear.
        exponent: p.
    """
    parts = [part for pair in sums.values() for part in pair]
    (flat,) = share.sums([torch.cat(parts)])
    means = iter(flat.div_(tokens).split([len(part) for part in parts]))
    information = {key: Factored(next(means), next(means), exponent) for key in sums}
    return dict(information), flat.isfinite().all()


def _factored_sums(x: Tensor, gradient: Tensor, skip: int) -> tuple[Tensor, ...]:
    """Return Σ δ² (rows,) and Σ x² (cols,) over tokens."""
    parts = (part[:, skip:].flatten(0, 1) for part in (gradient, x))
    return tuple(part.float().square().sum(0) for part in parts)


def _elementwise_sums(x: Tensor, gradient: Tensor, skip: int) -> tuple[Tensor, ...]:
    """Return Σ δ²·x² over tokens, (rows, cols)."""
    outputs, inputs = (_squares(part[:, skip:].flatten(0, 1)) for part in (gradient, x))
    if outputs.dtype == torch.bfloat16:
        return (torch.mm(outputs.T, inputs, out_dtype=torch.float32),)
    return (outputs.T @ inputs,)


def _squares(x: Tensor) -> Tensor:
    """Return x² in float32, or on a GPU, of 16-bit tensors, in bfloat16, which has its range."""
    if not x.is_cuda or x.dtype == torch.float32:
        return x.float().square()
    return x.square() if x.dtype == torch.bfloat16 else x.float().square().bfloat16()
