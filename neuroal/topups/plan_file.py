"""Read a plan from a file: a saved plan, or ratios from another project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neuroal.errors import UserError, check_choice
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.plan import SparsityPlan, check_plan_file
from neuroal.sparsity.ratio_files import RatioFile, read_ratios
from neuroal.topups.base import Allocation, AllocationContext, TopUp

TOLERANCE = 5e-3
"""Allowed difference between the sparsity of a plan and the target."""
VALUES = ("sparsity", "density")


@dataclass(frozen=True)
class PlanFile(TopUp):
    """Use the ratios in a file: a saved plan, a list or a table.

    A saved plan (``save.plan=FILE``, or ``plan.json`` beside a saved model) contains the sparsity
    for which it was made. `neuroal.sparsity.ratio_files` describes lists and tables. The sparsity
    of the file must equal the target sparsity.

    Args:
        path: path of the file.
        values: ``sparsity`` or ``density``, the kind of values in a list (OWL saves densities).
    """

    path: str | None = None
    values: str = "sparsity"

    file_parameters: ClassVar[frozenset[str]] = frozenset({"path"})

    def __post_init__(self) -> None:
        check_choice("topup.values", self.values, VALUES)

    def check(self, settings: PruningSettings) -> None:
        plan = self._load()
        if isinstance(plan, RatioFile):
            return
        if abs(plan.sparsity - settings.sparsity) > TOLERANCE:
            raise UserError(
                f"sparsity.ratio={settings.sparsity}: the plan {self.path} was made for "
                f"{plan.sparsity}; set sparsity.ratio={plan.sparsity}"
            )
        self._check_rows(plan, settings)

    def allocate(self, context: AllocationContext) -> Allocation:
        settings, plan = context.settings, self._load()
        if isinstance(plan, RatioFile):
            plan = SparsityPlan(plan.resolve(context.decoder), settings.sparsity)
            self._check_mean(plan, context.decoder)
            self._check_rows(plan, settings)
        return Allocation(SparsityPlan(plan.ratios, settings.sparsity), {"path": self.path})

    def _load(self) -> SparsityPlan | RatioFile:
        if not self.path:
            raise UserError(
                "topup.path=null: topup=plan needs a file; give a saved plan, a list or a table"
            )
        check_plan_file("topup.path", self.path)
        if self._is_saved(Path(self.path)):
            return SparsityPlan.load(self.path)
        return read_ratios(self.path, self.values == "density")

    @staticmethod
    def _is_saved(path: Path) -> bool:
        """Return whether `path` holds a JSON object, as a saved plan does, and no list or table."""
        if path.suffix == ".npy":
            return False
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.read(4096).lstrip().startswith("{")

    def _check_rows(self, plan: SparsityPlan, settings: PruningSettings) -> None:
        if plan.per_row():
            key = f"topup.path={self.path}: the plan has ratios per row"
            settings.check_row_ratios(key, "a plan without ratios per row")

    def _check_mean(self, plan: SparsityPlan, decoder: DecoderModel) -> None:
        means = plan.means()
        mean = sum(means[linear.key] * linear.numel for linear in decoder) / decoder.numel
        if abs(mean - plan.sparsity) > TOLERANCE:
            flipped = abs(1 - mean - plan.sparsity) <= TOLERANCE
            hint = (
                "are these densities? set topup.values=density"
                if flipped and self.values == "sparsity"
                else f"set sparsity.ratio={mean:.4g}"
            )
            raise UserError(
                f"sparsity.ratio={plan.sparsity}: the ratios in {self.path} have mean {mean:.4g}; "
                f"{hint}"
            )
