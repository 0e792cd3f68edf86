"""A plan made before, or by others, from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuroal.errors import UserError, check_choice
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules, check_coverage
from neuroal.topups.base import Allocation, AllocationContext, TopUp
from neuroal.topups.ratio_files import RatioFile, read_ratios

TOLERANCE = 5e-3
VALUES = ("sparsity", "density")


@dataclass(frozen=True)
class FixedPlan(TopUp):
    """Ratios from a file: a saved plan, or a list or table that others made.

    A saved plan (``save.plan=FILE``, or ``plan.json`` beside a saved model) holds the sparsity it
    was made for. For the other forms see `neuroal.topups.ratio_files`. Either must come to the
    sparsity that is asked for.

    Args:
        path: the file.
        values: whether a plain list holds each ``sparsity`` or each ``density`` (OWL's do).

    Sample YAML::

        _target_: neuroal.topups.fixed.FixedPlan
        path: plan.json
        values: sparsity
    """

    path: str | None = None
    values: str = "sparsity"

    def __post_init__(self) -> None:
        check_choice("topup.values", self.values, VALUES)

    def check(
        self, pruner: Pruner, sparsity: float, rules: Rules, group: int | None = None
    ) -> None:
        plan = self._load()
        if isinstance(plan, RatioFile):
            return
        if abs(plan.sparsity - sparsity) > TOLERANCE:
            raise UserError(
                f"sparsity.ratio={sparsity}: the plan {self.path} was made for {plan.sparsity}; "
                f"set sparsity.ratio={plan.sparsity}"
            )
        if plan.per_row():
            self._check_rows(pruner, rules, group)

    def allocate(self, context: AllocationContext) -> Allocation:
        plan = self._load()
        if isinstance(plan, RatioFile):
            plan = SparsityPlan(plan.resolve(context.subject), context.sparsity)
            self._check_mean(plan, context.subject)
            if plan.per_row():
                self._check_rows(context.pruner, context.rules, context.group)
        return Allocation(SparsityPlan(plan.ratios, context.sparsity), {"path": self.path})

    def _load(self) -> SparsityPlan | RatioFile:
        if not self.path:
            raise UserError("topup.path: topup=plan needs a file: a saved plan, a list or a table")
        if self._is_saved_plan(Path(self.path)):
            return SparsityPlan.load(self.path)
        return read_ratios(self.path, self.values == "density")

    def _is_saved_plan(self, path: Path) -> bool:
        if path.suffix == ".npy" or not path.is_file():
            return False
        return path.read_text(errors="replace").lstrip().startswith("{")

    def _check_rows(self, pruner: Pruner, rules: Rules, group: int | None) -> None:
        if group is not None:
            raise UserError(
                f"topup.path={self.path}: it has ratios per row, and an N:M pattern "
                f"(sparsity.of={group}) one N a block"
            )
        if pruner.updates_weights and rules is Rules.REFERENCE:
            raise UserError(
                f"topup.path={self.path}: it has ratios per row, which the authors' code lacks for "
                f"pruner={type(pruner).__name__.lower()}; use rules=exact"
            )

    def _check_mean(self, plan: SparsityPlan, subject: DecoderModel) -> None:
        check_coverage(plan, {linear.key: (linear.rows, linear.cols) for linear in subject})
        means = plan.means()
        mean = sum(means[linear.key] * linear.numel for linear in subject) / subject.numel
        if abs(mean - plan.sparsity) > TOLERANCE:
            flipped = abs(1 - mean - plan.sparsity) <= TOLERANCE
            hint = (
                "are these densities? set topup.values=density"
                if flipped and self.values == "sparsity"
                else f"set sparsity.ratio={mean:.4g}"
            )
            raise UserError(
                f"sparsity.ratio={plan.sparsity}: the ratios in {self.path} come to {mean:.4g}; "
                f"{hint}"
            )
