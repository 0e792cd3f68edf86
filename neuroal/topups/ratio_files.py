"""Ratios from files that others wrote: a list of numbers, or a CSV table.

A list (JSON, ``.npy``, or one number a line) has one entry a block, a linear or a row of a linear,
told apart by its length; linears and rows follow each other in the order of the model. OWL keeps
densities of blocks, AlphaPruning ratios of linears.

A table has a header. ``block,ratio`` gives each block one ratio, ``linear,ratio`` each linear
(``0.self_attn.q_proj``, or ``self_attn.q_proj`` beside a column ``block``), and a further column
``row`` each row. The last column may be called ``density`` instead.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuroal.errors import UserError, nearest
from neuroal.models.adapter import DecoderModel
from neuroal.plan import Ratio

VALUES = ("ratio", "sparsity", "density")


@dataclass(frozen=True)
class Entry:
    """One line of a table; None where it has no such column."""

    block: int | None
    linear: str | None
    row: int | None
    ratio: float


@dataclass(frozen=True)
class RatioFile:
    """What stands in a file, before it is known which model it is for."""

    path: str
    numbers: Sequence[float] = ()
    entries: Sequence[Entry] = ()

    def resolve(self, subject: DecoderModel) -> dict[str, Ratio]:
        """Ratio(s) of each linear of `subject`.

        Raises:
            UserError: a name or a number of entries that does not fit the model.
        """
        return self._from_entries(subject) if self.entries else self._from_numbers(subject)

    def _from_numbers(self, subject: DecoderModel) -> dict[str, Ratio]:
        numbers, linears = self.numbers, list(subject)
        rows = [linear.rows for linear in linears]
        if len(numbers) == len(subject):
            return {linear.key: numbers[linear.block] for linear in linears}
        if len(numbers) == len(linears):
            return {linear.key: ratio for linear, ratio in zip(linears, numbers, strict=True)}
        if len(numbers) == sum(rows):
            parts = torch.tensor(numbers, dtype=torch.float64).split(rows)
            return {linear.key: part for linear, part in zip(linears, parts, strict=True)}
        raise UserError(
            f"topup.path={self.path}: {len(numbers)} numbers; the model has {len(subject)} blocks, "
            f"{len(linears)} prunable linears and {sum(rows)} rows"
        )

    def _from_entries(self, subject: DecoderModel) -> dict[str, Ratio]:
        found: dict[str, dict[int | None, float]] = {linear.key: {} for linear in subject}
        for entry in self.entries:
            for key in self._keys(entry, subject):
                if entry.row in found[key]:
                    row = "" if entry.row is None else f", row {entry.row}"
                    raise UserError(f"topup.path={self.path}: '{key}'{row} stands there twice")
                found[key][entry.row] = entry.ratio
        return {linear.key: self._ratio(linear.key, linear.rows, found) for linear in subject}

    def _keys(self, entry: Entry, subject: DecoderModel) -> list[str]:
        if entry.linear is None:
            keys = [linear.key for linear in subject if linear.block == entry.block]
            wanted = f"block {entry.block}"
        else:
            wanted = entry.linear if entry.block is None else f"{entry.block}.{entry.linear}"
            keys = [linear.key for linear in subject if linear.key == wanted]
        if not keys:
            close = nearest(wanted, [linear.key for linear in subject])
            raise UserError(f"topup.path={self.path}: '{wanted}' is not in the model{close}")
        return keys

    def _ratio(self, key: str, rows: int, found: dict[str, dict[int | None, float]]) -> Ratio:
        ratios = found[key]
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
        path: the file: ``.csv``, ``.npy``, ``.json`` or one number a line.
        density: whether a list holds densities rather than sparsities.

    Raises:
        UserError: the file cannot be read as such.
    """
    try:
        if Path(path).suffix == ".npy":
            return _list(path, np.load(path).ravel().tolist(), density)
        text = Path(path).read_text()
        if text.lstrip().startswith("["):
            return _list(path, json.loads(text), density)
        if any(name in text.splitlines()[0] for name in VALUES):
            return _table(path, text.splitlines(), density)
        return _list(path, text.replace(",", " ").split(), density)
    except FileNotFoundError:
        raise UserError(f"topup.path={path}: no such file") from None
    except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
        raise UserError(f"topup.path={path}: no list or table of ratios ({error})") from error


def _list(path: str, numbers: Iterable[float | str], density: bool) -> RatioFile:
    ratios = [1 - float(number) if density else float(number) for number in numbers]
    if not ratios:
        raise ValueError("it is empty")
    _check_range(path, ratios)
    return RatioFile(path, numbers=ratios)


def _table(path: str, lines: Sequence[str], density: bool) -> RatioFile:
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    value = next(name for name in VALUES if name in names)
    if unknown := set(names) - {"block", "linear", "row", value}:
        raise ValueError(f"unknown column '{min(unknown)}'")
    if "block" not in names and "linear" not in names:
        raise ValueError("it needs a column 'block' or 'linear'")
    entries = [
        Entry(
            block=int(line["block"]) if "block" in names else None,
            linear=line["linear"].strip() if "linear" in names else None,
            row=int(line["row"]) if "row" in names else None,
            ratio=1 - float(line[value]) if value == "density" or density else float(line[value]),
        )
        for line in reader
    ]
    if not entries:
        raise ValueError("it has no lines")
    _check_range(path, [entry.ratio for entry in entries])
    return RatioFile(path, entries=entries)


def _check_range(path: str, ratios: Sequence[float]) -> None:
    for ratio in ratios:
        if not 0 <= ratio <= 1:
            raise UserError(f"topup.path={path}: {ratio:g} is no share between 0 and 1")
