"""What a run writes for the user besides its record: ``save.model`` and ``save.plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroal.config.naming import method_name
from neuroal.config.schema import SaveConfig
from neuroal.files.outputs import ModelFolder, PlanTarget
from neuroal.records.schema import Record


@dataclass(frozen=True)
class Outputs:
    """Targets of one run; None: not configured."""

    model: ModelFolder | None
    plan: PlanTarget | None

    @classmethod
    def of(cls, save: SaveConfig, identity: str) -> Outputs:
        return cls(
            ModelFolder(save.model, identity, save.overwrite, save.format) if save.model else None,
            PlanTarget(save.plan, identity, save.overwrite) if save.plan else None,
        )

    def prepare(self, again: bool = False) -> None:
        """Recover what an interrupted start left, and check that the targets can be written.

        Call it while holding the lock of the run.

        Args:
            again: the model is written even if it is there already.

        Raises:
            UserError: a target holds what this run must not replace.
        """
        if self.model is not None:
            self.model.recover()
            self.model.check(again)
        if self.plan is not None:
            self.plan.check()

    def lacks_model(self) -> bool:
        """Return whether the model is still to be saved."""
        return self.model is not None and not self.model.is_complete()

    def lacks_plan(self, plan: Mapping[str, Any], again: bool) -> bool:
        """Return whether `plan` is still to be saved; `again`: even if it is there already.

        Raises:
            UserError: the file was changed after this run saved it.
        """
        return self.plan is not None and (again or not self.plan.holds(plan))

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Save `plan`, if a target is configured."""
        if self.plan is not None:
            self.plan.write(plan)


def structure_of(record: Record) -> str:
    """Return ``N:M`` if every block keeps N of M consecutive weights, and else ``unstructured``."""
    sparsity = record.config["sparsity"]
    same_everywhere = method_name("topup", record.config["topup"]) == "uniform"
    keep, of = sparsity["keep"], sparsity["of"]
    return f"{keep}:{of}" if keep is not None and same_everywhere else "unstructured"
