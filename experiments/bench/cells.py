"""Rows of Markdown tables."""

from __future__ import annotations

from typing import Any

Results = dict[str, dict[str, Any]]
"""Every measurement, by its name."""


def verdict(value: float, target: float | None) -> str:
    missed = target is not None and value > target
    return f"{value:.2f}" + (" (missed)" if missed else "")


def row(*cells: object) -> str:
    return "| " + " | ".join("–" if cell is None else str(cell) for cell in cells) + " |"
