"""Read sparsity ratios from a list of numbers or a CSV table, as other projects write them.

A list (JSON, ``.npy``, or one number per line) has one entry per block, per linear or per row, in
the order of the model; its length determines which. OWL saves densities of blocks, AlphaPruning
saves ratios of linears.

A table has a header. ``block,ratio`` gives each block one ratio and ``linear,ratio`` gives each
linear one ratio; a linear is named ``0.self_attn.q_proj``, or ``self_attn.q_proj`` if there is a
column ``block``. An additional column ``row`` gives each row its own ratio. The value column may
also be named ``sparsity`` or ``density``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroal.errors import UserError, first_line, nearest, shortened
from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.plan import Ratio, check_plan_file, check_shares, json_number, plan_json

VALUES = ("ratio", "sparsity", "density")
READING = (OSError, EOFError, ValueError, LookupError, ArithmeticError)


@dataclass(frozen=True)
class Entry:
    """One line of a table; None marks a column that the table lacks."""

    block: int | None
    linear: str | None
    row: int | None
    ratio: float


@dataclass(frozen=True)
class RatioFile:
    """Content of a file of ratios, not yet assigned to the linears of a model."""

    path: str
    numbers: Sequence[float] = ()
    entries: Sequence[Entry] = ()

    def resolve(self, decoder: DecoderModel) -> dict[str, Ratio]:
        """Return the ratio(s) of each linear of `decoder`."""
        return self._from_entries(decoder) if self.entries else self._from_numbers(decoder)

    def _from_numbers(self, decoder: DecoderModel) -> dict[str, Ratio]:
        numbers, linears = self.numbers, list(decoder)
        rows = [linear.rows for linear in linears]
        if len(numbers) == len(decoder):
            return {linear.key: numbers[linear.block] for linear in linears}
        if len(numbers) == len(linears):
            return {linear.key: ratio for linear, ratio in zip(linears, numbers, strict=True)}
        if len(numbers) == sum(rows):
            parts = torch.tensor(numbers, dtype=torch.float64).split(rows)
            return {linear.key: part for linear, part in zip(linears, parts, strict=True)}
        raise UserError(
            f"topup.path={self.path}: {len(numbers)} numbers; the model has {len(decoder)} blocks, "
            f"{len(linears)} prunable linears and {sum(rows)} rows; give one number for each"
        )

    def _from_entries(self, decoder: DecoderModel) -> dict[str, Ratio]:
        ratios: dict[str, dict[int | None, float]] = {linear.key: {} for linear in decoder}
        for entry in self.entries:
            for key in self._keys(entry, decoder):
                if entry.row in ratios[key]:
                    row = "" if entry.row is None else f", row {entry.row}"
                    raise UserError(
                        f"topup.path={self.path}: '{key}'{row} is listed twice; remove one line"
                    )
                ratios[key][entry.row] = entry.ratio
        return {lin.key: self._ratio(lin.key, lin.rows, ratios[lin.key]) for lin in decoder}

    def _keys(self, entry: Entry, decoder: DecoderModel) -> list[str]:
        if entry.linear is None:
            keys = [linear.key for linear in decoder if linear.block == entry.block]
            name = f"block {entry.block}"
        else:
            name = entry.linear if entry.block is None else f"{entry.block}.{entry.linear}"
            keys = [linear.key for linear in decoder if linear.key == name]
        if not keys:
            close = nearest(name, [linear.key for linear in decoder])
            raise UserError(f"topup.path={self.path}: '{name}' is not in the model{close}")
        return keys

    def _ratio(self, key: str, rows: int, ratios: dict[int | None, float]) -> Ratio:
        """Return the ratio(s) of one linear from its `ratios` by row; None: the whole linear."""
        if list(ratios) == [None]:
            return ratios[None]
        if None in ratios or sorted(row for row in ratios if row is not None) != list(range(rows)):
            raise UserError(
                f"topup.path={self.path}: '{key}' needs one ratio, "
                f"or one for each row 0 … {rows - 1}"
            )
        return torch.tensor([ratios[row] for row in range(rows)], dtype=torch.float64)


def read_ratios(path: str, density: bool) -> RatioFile:
    """Read a list or a table of ratios.

    Args:
        path: a file with suffix ``.csv``, ``.npy`` or ``.json``, or with one number per line.
        density: whether the values are densities rather than sparsities.
    """
    check_plan_file("topup.path", path)
    try:
        if Path(path).suffix == ".npy":
            return _list(path, map(json_number, _array(path)), density)
        text = Path(path).read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            return _list(path, map(json_number, plan_json(text)), density)
        lines = text.splitlines()
        if lines and any(name in lines[0] for name in VALUES):
            return _table(path, lines, density)
        return _list(path, map(_number, text.replace(",", " ").split()), density)
    except UserError:
        raise
    except (*READING, csv.Error, TypeError) as error:
        raise UserError(
            f"topup.path={path}: not a list or table of ratios ({first_line(error)}); "
            "use a saved plan, a list of numbers or a CSV table"
        ) from error


def _array(path: str) -> list[Any]:
    try:
        values: list[Any] = np.load(path).ravel().tolist()
    except Exception as error:  # NumPy parses the header as Python code, and raises many types
        raise ValueError(first_line(error)) from error
    return values


def _list(path: str, numbers: Iterable[float], density: bool) -> RatioFile:
    ratios = [_sparsity(number, density) for number in numbers]
    if not ratios:
        raise ValueError("it is empty")
    check_shares(f"topup.path={path}", {"": torch.tensor(ratios, dtype=torch.float64)})
    return RatioFile(path, numbers=ratios)


def _table(path: str, lines: Sequence[str], density: bool) -> RatioFile:
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    value = next((name for name in VALUES if name in names), None)
    if value is None or len(set(names)) < len(names):
        raise ValueError(
            f"its header is '{shortened(lines[0])}'; it needs one column of ratios, and commas "
            "between columns"
        )
    if unknown := set(names) - {"block", "linear", "row", value}:
        raise ValueError(f"unknown column '{min(unknown)}'")
    if "block" not in names and "linear" not in names:
        raise ValueError("it needs a column 'block' or 'linear'")
    entries = []
    for line in reader:
        if None in line or None in line.values():
            raise ValueError(f"line {reader.line_num} has not {len(names)} columns")
        entries.append(
            Entry(
                block=_index(line["block"]) if "block" in names else None,
                linear=line["linear"].strip() if "linear" in names else None,
                row=_index(line["row"]) if "row" in names else None,
                ratio=_sparsity(_number(line[value]), density or value == "density"),
            )
        )
    if not entries:
        raise ValueError("it has no entries")
    ratios = torch.tensor([entry.ratio for entry in entries], dtype=torch.float64)
    check_shares(f"topup.path={path}", {"": ratios})
    return RatioFile(path, entries=entries)


def _sparsity(value: float, density: bool) -> float:
    return 1 - value if density else value


def _number(text: str) -> float:
    """Return the number in `text`; refuse ``7_0``, which `float` accepts."""
    if "_" in text:
        raise ValueError(f"'{shortened(text)}' is not a number")
    return float(text)


def _index(text: str) -> int:
    """Return the number of a block or row in `text`."""
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise ValueError(f"'{shortened(text)}' is not the number of a block or row")
    return int(text)
