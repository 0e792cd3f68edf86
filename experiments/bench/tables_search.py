"""The table of searches, and how compiled and uncompiled ones differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.page import CARD, Column, Results, Row, Table, comparable

SEARCH_TARGETS = {"exact": 20.0, "exact-uncompiled": None, "adaptive": 8.0}
CRITERIA_APART = 1e-3
"""Largest relative difference of a criterion between compiled and uncompiled blocks."""


def search_rows(results: Results) -> Iterator[Row]:
    """Yield for each shape every variant of the search."""
    for name, dense in sorted(results.items()):
        if not name.startswith("dense-"):
            continue
        subject = name.removeprefix("dense-")
        for variant, target in SEARCH_TARGETS.items():
            result = results.get(f"search-{variant}-{subject}")
            if result is None:
                continue
            row = result["lambda_row"]
            eager = not (result["compiled"] or "uncompiled" in variant)
            yield {
                **result,
                "subject": subject.replace("-", ", "),
                "variant": f"{variant} (uncompiled)" if eager else variant,
                "lambdas": f"{result['lambda_block']}, {'–' if row is None else row}",
                "measured": f"{result['complete']} of {result['candidates']}",
                **(_ratios(result, dense, target) if "-wanda-" in subject else {}),
            }


def _ratios(result: Row, dense: Row, target: float | None) -> Row:
    """Return target and ratios of a search; SparseGPT and ALPS take longer than the products."""
    passes = result["candidates"] * 2 * dense["forward_seconds"]
    seconds = result["seconds"]
    floor = seconds / dense["floor_seconds"]
    return {"target": target, "equivalents": seconds / passes, "floor": floor}


SEARCH = Table(
    (
        Column("shape, pruner, dtype", "subject"),
        Column("search", "variant"),
        CARD,
        Column("target s", "target"),
        Column("s", "seconds", ".2f", target="target"),
        Column("forward eq.", "equivalents", ".2f"),
        Column("÷ floor", "floor", ".2f"),
        Column("GiB (target 17)", "peak_gib"),
        Column("λ, λ_r", "lambdas"),
        Column("criteria measured", "measured"),
        Column("compiling s", "compile_seconds", ".1f"),
    ),
    search_rows,
)


def search_differences(results: Results) -> Iterator[str]:
    """Yield the differences between the criteria of compiled and uncompiled blocks.

    Searches with different versions are left out, as their criteria differ for other reasons too.
    """
    for name, plain in sorted(results.items()):
        compiled = results.get(name.replace("-uncompiled", ""))
        if not (name.startswith("search-exact-uncompiled-") and compiled):
            continue
        if comparable(plain, compiled):
            subject = name.removeprefix("search-exact-uncompiled-")
            yield f"- {subject}: {difference(plain, compiled)}"


def difference(plain: Mapping[str, Any], compiled: Mapping[str, Any]) -> str:
    """Return the largest relative differences between the criteria of two searches, in words."""
    first, second = plain["report"], compiled["report"]
    apart = {
        step: max(
            abs(a / b - 1)
            for a, b in zip(first[f"criterion_{step}"], second[f"criterion_{step}"], strict=True)
        )
        for step in ("block", "row")
    }
    same = all(plain[key] == compiled[key] for key in ("lambda_block", "lambda_row"))
    if first["lambda_block"] == second["lambda_block"]:
        rows = f"{apart['row']:.1e} in the row step, where each ranks rows by its own δ"
    else:
        rows = "the row steps start from different blocks"
    missed = ", missed" if apart["block"] > CRITERIA_APART else ""
    return (
        f"criteria of compiled and uncompiled blocks differ by at most {apart['block']:.1e} in the "
        f"block step (target 1e-3{missed}); {rows}; λ's {'the same' if same else 'differ'}."
    )
