"""Sparsity plans: the sparsity ratio of each linear or of each of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError, shortened
from neuroal.models.adapter import DecoderModel

Ratio = float | Tensor


@dataclass(frozen=True, eq=False)
class SparsityPlan:
    """Nominal sparsity of every prunable linear; a budget rule converts it to counts of zeros.

    Attributes:
        ratios: ``"BLOCK.NAME"`` → one ratio for all rows, or a float64 tensor (rows,).
            Under ``rules=reference`` the two forms round differently (the authors' "row" and
            "neuron" granularity), so a linear with equal rows may still have a tensor.
        sparsity: target share of zeros over all prunable weights.
    """

    ratios: Mapping[str, Ratio]
    sparsity: float

    def per_row(self) -> bool:
        """Return whether any linear has one ratio per row."""
        return any(isinstance(ratio, Tensor) for ratio in self.ratios.values())

    def means(self) -> dict[str, float]:
        """Return the mean nominal sparsity of each linear."""
        return {
            key: float(torch.as_tensor(r, dtype=torch.float64).mean())
            for key, r in self.ratios.items()
        }

    def to_dict(self) -> dict[str, Any]:
        ratios = {k: r.tolist() if isinstance(r, Tensor) else r for k, r in self.ratios.items()}
        return {"sparsity": self.sparsity, "ratios": ratios}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SparsityPlan:
        """Return the plan that `to_dict` wrote."""
        try:
            ratios: dict[str, Ratio] = {
                key: torch.tensor(r, dtype=torch.float64) if isinstance(r, list) else float(r)
                for key, r in data["ratios"].items()
            }
            plan = cls(ratios, float(data["sparsity"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"plan: not a saved plan ({shortened(repr(error))}); "
                "use a file with the keys sparsity and ratios"
            ) from error
        for key, ratio in ratios.items():
            values = torch.as_tensor(ratio)
            # The budget clips ratios, so a saved plan may slightly exceed 0 and 1. The wide bounds
            # still reject percentages.
            if not bool(((values > -1) & (values < 2)).all()):
                raise UserError(
                    f"plan: a ratio of '{key}' is not between 0 and 1; use shares, not percentages"
                )
        return plan

    @classmethod
    def load(cls, path: str | Path, key: str = "topup.path") -> SparsityPlan:
        """Read a plan that ``save.plan`` wrote to a JSON file; errors name `key`."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except FileNotFoundError:
            raise UserError(f"{key}={path}: no such file; save one with save.plan=FILE") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{key}={path}: cannot be read as JSON ({error})") from error


def uniform_plan(decoder: DecoderModel, sparsity: float) -> SparsityPlan:
    """Return the plan that gives every linear of `decoder` the ratio `sparsity`."""
    return SparsityPlan({linear.key: sparsity for linear in decoder}, sparsity)
