"""The plan: how sparse each linear, or each row of it, shall be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError

Ratio = float | Tensor


@dataclass(frozen=True, eq=False)
class SparsityPlan:
    """Nominal sparsity of every prunable linear; what the budget rule makes of it are counts.

    Attributes:
        ratios: ``"BLOCK.NAME"`` → one ratio for all rows, or a float64 tensor (rows,).
            Under ``rules=reference`` the two forms round differently (the authors' "row" and
            "neuron" granularity), so a linear with equal rows may still carry a tensor.
        sparsity: the share of zeros asked for over all prunable weights.
    """

    ratios: Mapping[str, Ratio]
    sparsity: float

    def per_row(self) -> bool:
        """Whether any linear has a ratio of its own for each row."""
        return any(isinstance(ratio, Tensor) for ratio in self.ratios.values())

    def means(self) -> dict[str, float]:
        """Mean nominal sparsity of each linear."""
        return {
            key: float(torch.as_tensor(r, dtype=torch.float64).mean())
            for key, r in self.ratios.items()
        }

    def to_dict(self) -> dict[str, Any]:
        ratios = {k: r.tolist() if isinstance(r, Tensor) else r for k, r in self.ratios.items()}
        return {"sparsity": self.sparsity, "ratios": ratios}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SparsityPlan:
        """Read `to_dict`'s form.

        Raises:
            UserError: a key is missing, or a ratio is no share.
        """
        try:
            ratios: dict[str, Ratio] = {
                key: torch.tensor(r, dtype=torch.float64) if isinstance(r, list) else float(r)
                for key, r in data["ratios"].items()
            }
            plan = cls(ratios, float(data["sparsity"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"plan: not a saved plan ({error!r}); expected sparsity and ratios"
            ) from error
        for key, ratio in ratios.items():
            values = torch.as_tensor(ratio)
            # The budget clips, so a saved plan may go a little beyond 0 and 1; percents may not.
            if not bool(((values > -1) & (values < 2)).all()):
                raise UserError(f"plan: ratio of '{key}' is no share between 0 and 1")
        return plan

    @classmethod
    def load(cls, path: str | Path, key: str = "topup.path") -> SparsityPlan:
        """Read a plan from a JSON file written by ``save.plan`` (or a record's ``plan`` entry).

        Raises:
            UserError: it cannot be read; says so of `key`.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except FileNotFoundError:
            raise UserError(f"{key}={path}: no such file; save one with save.plan=FILE") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{key}={path}: cannot be read as JSON ({error})") from error
