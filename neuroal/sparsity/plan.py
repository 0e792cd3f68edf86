"""Sparsity plans: the sparsity ratio of each linear or of each of its rows."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError, first_line, shortened
from neuroal.files.digest import is_file
from neuroal.models.adapter import DecoderModel

Ratio = float | Tensor
MOST_BYTES = 2**30
"""Maximum size of a plan file; a plan with ratios by row has some 20 bytes for each."""
MOST_OUTSIDE = 0.5
"""Largest distance from [0, 1] at which a ratio of a file is clipped rather than refused."""


@dataclass(frozen=True, eq=False)
class SparsityPlan:
    """Nominal sparsity of every prunable linear; a budget rule converts it to counts of zeros.

    Ratios are clipped to [0, 1] when a plan is built, so a plan that is saved and read back gives
    the same counts.

    Attributes:
        ratios: ``"BLOCK.NAME"`` → one ratio for all rows, or a float64 tensor (rows,).
            Under ``rules=reference`` the two forms round differently (the authors' "row" and
            "neuron" granularity), so a linear with equal rows may still have a tensor.
        sparsity: target share of zeros over all prunable weights.

    Raises:
        UserError: a ratio is NaN or infinite.
    """

    ratios: Mapping[str, Ratio]
    sparsity: float

    def __post_init__(self) -> None:
        ratios = {key: _clipped(key, ratio) for key, ratio in self.ratios.items()}
        object.__setattr__(self, "ratios", ratios)

    def in_order(self, keys: Iterable[str]) -> SparsityPlan:
        """Return this plan with its linears in the order of `keys`, which name all of them."""
        order = list(keys)
        if list(self.ratios) == order:
            return self
        return SparsityPlan({key: self.ratios[key] for key in order}, self.sparsity)

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
    def from_dict(cls, data: Mapping[str, Any], source: str = "plan") -> SparsityPlan:
        """Return the plan that `to_dict` wrote; errors and warnings name `source`.

        Version 0.1 saved ratios outside [0, 1]. They are clipped, with a warning.

        Raises:
            UserError: `data` is not a saved plan, or has a ratio that is not a share.
        """
        try:
            sparsity, entries = json_number(data["sparsity"]), data["ratios"].items()
            ratios = {str(key): _ratio_of(entry) for key, entry in entries}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{source}: not a saved plan ({shortened(repr(error))}); "
                "use a file with the keys sparsity and ratios"
            ) from error
        if not 0 < sparsity < 1:
            raise UserError(f"{source}: sparsity {sparsity:g} must be above 0 and below 1")
        check_shares(source, ratios)
        return cls(ratios, sparsity)

    @classmethod
    def load(cls, path: str | Path, key: str = "topup.path") -> SparsityPlan:
        """Read a plan that ``save.plan`` wrote to a JSON file; errors name `key`."""
        check_plan_file(key, path)
        try:
            data = plan_json(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{key}={path}: cannot be read as JSON ({first_line(error)})"
            ) from error
        return cls.from_dict(data, f"{key}={path}")


def check_plan_file(key: str, path: str | Path) -> None:
    """Raise `UserError` unless `path`, the value of `key`, is a file of at most `MOST_BYTES`."""
    if not is_file(str(path)):
        raise UserError(
            f"{key}={path}: no such file; check the path, or save a plan with save.plan=FILE"
        )
    if (size := Path(path).stat().st_size) > MOST_BYTES:
        raise UserError(f"{key}={path}: has {size} bytes; a plan has at most {MOST_BYTES}")


def plan_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or names a key of an object twice.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"'{next(n for n in names if names.count(n) > 1)}' is there twice")
        return values

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_shares(source: str, ratios: Mapping[str, Ratio]) -> None:
    """Refuse ratios of a file that are not shares, and warn of those that will be clipped.

    A ratio by at most `MOST_OUTSIDE` outside [0, 1] is clipped when the plan is built; the wide
    bounds still refuse percentages, NaN and infinity.

    Args:
        source: the file, for the message.
        ratios: ratio(s) by linear; an empty name if they are not of one linear.
    """
    outside = []
    for name, ratio in ratios.items():
        extremes = _extremes(torch.as_tensor(ratio, dtype=torch.float64))
        for value in extremes:
            if not -MOST_OUTSIDE <= value <= 1 + MOST_OUTSIDE:
                entry = f"'{name}': " if name else ""
                raise UserError(
                    f"{source}: {entry}{value:g} is not between 0 and 1; use shares, not "
                    "percentages"
                )
        outside += [value for value in extremes if not 0 <= value <= 1]
    if outside:
        warnings.warn(
            f"{source}: ratios between {min(outside):g} and {max(outside):g} are outside [0, 1] "
            "and are clipped",
            stacklevel=3,
        )


def _extremes(values: Tensor) -> list[float]:
    """Return the least and the greatest of `values`, both NaN if any is; none of no values."""
    return [float(value) for value in values.aminmax()] if values.numel() else []


def _clipped(key: str, ratio: Ratio) -> Ratio:
    """Return the ratio(s) of the linear `key`, clipped to [0, 1] and, per row, as float64."""
    if isinstance(ratio, Tensor):
        if all(map(math.isfinite, _extremes(ratio))):
            return ratio.double().clamp(0, 1)
    elif math.isfinite(ratio):
        return min(max(float(ratio), 0.0), 1.0)
    raise UserError(
        f"plan: a ratio of '{key}' is NaN or infinite; a top-up must return ratios from 0 to 1"
    )


def _ratio_of(entry: object) -> Ratio:
    """Return one entry of the ratios of a saved plan: a number, or a list of one per row."""
    if isinstance(entry, list):
        return torch.tensor([json_number(value) for value in entry], dtype=torch.float64)
    return json_number(entry)


def uniform_plan(decoder: DecoderModel, sparsity: float) -> SparsityPlan:
    """Return the plan that gives every linear of `decoder` the ratio `sparsity`."""
    return SparsityPlan({linear.key: sparsity for linear in decoder}, sparsity)


def json_number(value: object) -> float:
    """Return a number of a JSON file; refuse strings and booleans, which `float` would accept."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
