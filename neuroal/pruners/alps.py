"""ALPS: choose each row's weights by ADMM, then fit them by least squares."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.kernels.input_statistics import InputStatistics, Need
from neuroal.kernels.products import operand, product
from neuroal.kernels.selection import zeroed
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import PrunedWeight, Pruner, lowest, measured
from neuroal.pruners.faults import hessian_fault
from neuroal.sparsity.budget import LinearBudget, Rules

GROWTH = 1.05
"""Growth of ρ per step of ADMM, applied once per stage."""
MOST_STEPS = 2000
"""Upper bound of the steps, before which ρ has long outgrown every other number."""
EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class ALPS(Pruner):
    """Choose the mask by ADMM and fit the remaining weights by conjugate gradients.

    For a weight W with inputs x, minimise ‖(X − W)·x‖² over the calibration tokens, where every row
    of X has the zeros of its budget. With H = Σ x xᵀ plus `damping` times its mean diagonal on the
    diagonal, and S = diag(H)^½, the problem is solved for Ŵ = W·S and Ĥ = S⁻¹·H·S⁻¹:

    1. ADMM chooses the mask. From D = Ŵ and U = 0, each step computes
       A = (Ŵ·Ĥ + ρ(D − U))·(Ĥ + ρI)⁻¹; D = the largest |A + U| of every row, or of every group of
       an N:M pattern, and 0 elsewhere; U = U + A − D. ρ grows between stages of equal ρ, and U is
       divided by the same factor. The mask is that of the last D.
    2. Conjugate gradients fit the weights of each row to the mask, starting from W.

    A run that prunes to masks of an earlier run skips the first part. Inputs that are always zero
    have S = 1, and their weights are zeroed.

    Source: Meng et al., 2024 (arXiv 2406.07831), sections 3.1 to 3.3, with another schedule of ρ.

    Args:
        damping: the share of the mean diagonal of H that is added to the diagonal.
        rho: first value of ρ.
        stages: number of values of ρ. Each needs the inverse of Ĥ + ρI.
        stage_steps: steps of ADMM at each ρ, which then grows by 5 % for each of them. The
            defaults are as good as 150 values of ρ within 3 % of perplexity.
        cg_steps: steps of conjugate gradients.
        exact_products: multiply float32 numbers on a GPU; slower. A CPU always does.
    """

    damping: float = 0.01
    rho: float = 0.1
    stages: int = 10
    stage_steps: int = 15
    cg_steps: int = 100
    exact_products: bool = False

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NORM, Need.GRAM})
    updates_weights: ClassVar[bool] = True
    refinable: ClassVar[bool] = False
    rules: ClassVar[frozenset[Rules]] = frozenset({Rules.EXACT})

    def __post_init__(self) -> None:
        for name in ("damping", "rho"):
            if not getattr(self, name) > 0:
                raise UserError(f"pruner.{name}={getattr(self, name)}: must be above 0")
        for name, least in (("stages", 1), ("stage_steps", 1), ("cg_steps", 0)):
            if getattr(self, name) < least:
                raise UserError(f"pruner.{name}={getattr(self, name)}: must be at least {least}")
        if self.stages * self.stage_steps > MOST_STEPS:
            raise UserError(
                f"pruner.stages={self.stages}: {self.stages} × {self.stage_steps} steps are more "
                f"than {MOST_STEPS}; lower pruner.stages or pruner.stage_steps"
            )

    def prune(
        self, weight: Tensor, statistics: InputStatistics | None, budget: LinearBudget
    ) -> PrunedWeight:
        inputs = self._inputs(measured(statistics))
        shrinkages = self._shrinkages(measured(statistics), inputs.hessian)
        mask = self._mask(inputs.scaled(weight), shrinkages, budget)
        return PrunedWeight(self._fitted(weight, inputs, mask), mask)

    def prune_to(
        self,
        weight: Tensor,
        statistics: InputStatistics | None,
        budget: LinearBudget,
        mask: Tensor,
    ) -> PrunedWeight:
        return PrunedWeight(self._fitted(weight, self._inputs(measured(statistics)), mask), mask)

    def meets(self, mask: Tensor, budget: LinearBudget) -> Tensor:
        return budget.met_by(mask)

    def check_tokens(self, tokens: int, decoder: DecoderModel) -> None:
        widest = max(decoder, key=lambda linear: linear.cols)
        if tokens < widest.cols:
            warnings.warn(
                f"{self.setting}: {tokens} calibration tokens do not determine the weights of the "
                f"{widest.cols} inputs of '{widest.key}'; set a higher calibration.windows",
                stacklevel=2,
            )

    def operations_per_weight(self, cols: float) -> float:
        products = self.stages * self.stage_steps + self.cg_steps
        return 2 * cols * (products + self.stages)

    def _inputs(self, statistics: InputStatistics) -> _ScaledInputs:
        """Return the scaled Hessian, computed once for linears that read the same input."""
        return statistics.once(f"alps {self.damping}", lambda: self._scaled_inputs(statistics))

    def _scaled_inputs(self, statistics: InputStatistics) -> _ScaledInputs:
        if statistics.gram is None:
            raise ValueError("ALPS needs the Gram matrix")
        diagonal = statistics.gram.diagonal()
        dead = diagonal == 0
        damped = diagonal + self.damping * diagonal.mean()
        scale = damped.sqrt().masked_fill_(dead, 1)
        hessian = statistics.gram / scale / scale[:, None]
        hessian.diagonal().fill_(1)
        return _ScaledInputs(hessian, scale, dead)

    def _mask(self, dense: Tensor, shrinkages: Iterable[Tensor], budget: LinearBudget) -> Tensor:
        """Return the mask that ADMM chooses for the scaled weight `dense`, both (rows, cols).

        The state is Z = A + U: Z = U where the mask prunes and Z = D elsewhere. As
        Ŵ·Ĥ + ρ(D − U) = Ŵ·(Ĥ + ρI) + ρ(D − U − Ŵ), a step computes A = Ŵ + (D − U − Ŵ)·P with
        P = ρ(Ĥ + ρI)⁻¹ from `shrinkages`, which does not amplify rounding errors.
        """
        counts = budget.counts.to(dense.device)  # copied once, not in every step
        budget = dataclasses.replace(budget, counts=counts)
        state, mask = dense.clone(), torch.zeros_like(dense, dtype=torch.bool)
        for stage, shrinkage in enumerate(shrinkages):
            if stage:
                state = torch.where(mask, state / self._growth, state)
            for _ in range(self.stage_steps):
                change = torch.where(mask, -state, state).sub_(dense)
                state.mul_(mask).add_(dense).add_(product(change, shrinkage))
                mask = lowest(state.abs(), budget)
        return mask

    @property
    def _growth(self) -> float:
        """Factor of ρ from stage to stage."""
        return GROWTH**self.stage_steps

    def _shrinkages(self, statistics: InputStatistics, hessian: Tensor) -> Iterator[Tensor]:
        """Yield P (cols, cols) of each stage, stored only if several linears read the input."""
        for stage in range(self.stages):
            rho = self.rho * self._growth**stage
            compute = partial(self._inverted, hessian, rho)
            shared = statistics.readers > 1
            yield statistics.once(f"{self}, rho {rho}", compute) if shared else compute()

    def _inverted(self, hessian: Tensor, rho: float) -> Tensor:
        """Return ρ(Ĥ + ρI)⁻¹ as an `operand`.

        Raises:
            MethodFault: Ĥ is not finite, or Ĥ + ρI is not positive definite.
        """
        shifted = hessian / rho
        shifted.diagonal().add_(1)
        try:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
            return operand(inverse, exact=self.exact_products)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise hessian_fault(self.setting, self.damping, hessian) from error

    def _fitted(self, weight: Tensor, inputs: _ScaledInputs, mask: Tensor) -> Tensor:
        """Return `weight` with the values that fit `mask`, and zeros elsewhere."""
        dense, matrix = inputs.scaled(weight), operand(inputs.hessian, exact=self.exact_products)
        fitted = least_squares(dense, mask, inputs.hessian, matrix, self.cg_steps)
        return zeroed((fitted / inputs.scale).to(weight.dtype), mask)


@dataclass(frozen=True, eq=False)
class _ScaledInputs:
    """The inputs of a linear, scaled to a Hessian with a diagonal of ones.

    Attributes:
        hessian: Ĥ (cols, cols) float32.
        scale: S (cols,).
        dead: inputs that are always zero, (cols,) bool.
    """

    hessian: Tensor
    scale: Tensor
    dead: Tensor

    def scaled(self, weight: Tensor) -> Tensor:
        """Return Ŵ = W·S in float32, 0 for inputs that are always zero: (rows, cols)."""
        return (weight.float() * self.scale).masked_fill_(self.dead, 0)


def least_squares(
    dense: Tensor, mask: Tensor, hessian: Tensor, matrix: Tensor, steps: int
) -> Tensor:
    """Minimise (x − ŵ)·Ĥ·(x − ŵ)ᵀ for each row by conjugate gradients, with x = 0 at the mask.

    The rows start from `dense`, zeroed by the mask, and are computed together. Preconditioning by
    the diagonal of Ĥ changes nothing, because it consists of ones. A row stops when its gradient
    has fallen by the precision of float32.

    Args:
        dense: ŵ of every row, (rows, cols).
        mask: (rows, cols) bool, True = pruned.
        hessian: Ĥ (cols, cols) float32, with ones on the diagonal; gives the first gradient.
        matrix: its `operand`, by which every step multiplies.
        steps: number of steps.
    """
    fitted, remaining = zeroed(dense, mask), (~mask).float()
    residual = ((dense - fitted) @ hessian).mul_(remaining)
    direction, power = residual.clone(), residual.square().sum(1, keepdim=True)
    least = power * EPSILON**2
    for _ in range(steps):
        image = product(direction, matrix).mul_(remaining)
        curvature = (direction * image).sum(1, keepdim=True)
        active = (curvature > 0) & (power > least)
        length = torch.where(active, power / curvature, 0)
        fitted.addcmul_(length, direction)
        residual.addcmul_(length, image, value=-1)
        before, power = power, residual.square().sum(1, keepdim=True)
        direction.mul_(torch.where(active, power / before, 0)).add_(residual)
    return fitted
