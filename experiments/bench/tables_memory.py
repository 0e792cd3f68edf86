"""The tables with targets for memory: offloading and equal marginals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.page import CARD, Column, Results, Row, Table, comparable
from neuroal.topups.marginal import EqualMarginals

Targets = dict[str, tuple[float | None, float | None]]

OFFLOAD_TARGETS: dict[str, Targets] = {  # peak GiB, seconds as a multiple of those without
    "7b-none": {"search": (17, None), "prune": (18, None)},
    "7b-blocks": {"search": (5, 1.3), "prune": (5, 1.3), "perplexity": (5, 1.3)},
    "7b-disk": {"search": (5, None), "prune": (5, None), "perplexity": (5, None)},
    "30b-blocks": {"search": (24, None), "prune": (24, None), "perplexity": (24, None)},
}
STAGES = ("search", "perplexity", "prune")
HOMES = ("none", "blocks", "devices2", "devices4", "disk")
MARGINAL_SECONDS = {"first": 200.0, "fast": 45.0, "default": 110.0}
MARGINAL_GIB = {"none": 41.6, "blocks": 24.0}
FISHER_TARGETS = {"factored": (8.0, 24.0), "elementwise": (11.0, 34.0)}
"""Form → seconds and GiB."""


def offload_rows(results: Results) -> Iterator[Row]:
    """Yield every stage, by shape and by where the weights are."""
    shapes = sorted({name.split("-")[1] for name in results if name.startswith("offload-")})
    for shape in shapes:
        for home in HOMES:
            for stage in STAGES:
                result = results.get(f"offload-{shape}-{home}-{stage}")
                if result is not None:
                    plain = results.get(f"offload-{shape}-none-{stage}")
                    yield offload_row(f"{shape}-{home}", stage, result, plain)


def offload_row(
    name: str, stage: str, result: Mapping[str, Any], plain: Mapping[str, Any] | None
) -> Row:
    """Return one stage, beside the one without offloading.

    They are compared only if they had the same windows and versions.
    """
    gib, slowest = OFFLOAD_TARGETS.get(name, {}).get(stage, (None, None))
    row = {
        **result,
        "weights": name,
        "stage": stage,
        "size": _size(result),
        "slowest": slowest,
        "gib": gib,
    }
    if plain is None or plain is result:
        return row
    if _size(plain) != _size(result) or not comparable(plain, result):
        return row
    ratio = result["seconds"] / plain["seconds"]
    return {**row, "ratio": ratio, "same": agreement(result["found"], plain["found"])}


def _size(result: Mapping[str, Any]) -> str:
    return f"{result['windows']} × {result['seqlen']}"


def agreement(outcome: Any, expected: Any) -> str:
    """Return ``yes`` if the outcomes are equal, else the largest relative difference."""
    if outcome == expected:
        return "yes"
    if isinstance(outcome, float):
        return f"to {abs(outcome / expected - 1):.0e}"
    if isinstance(outcome, str):
        return "NO"
    pairs = [p for a, b in zip(outcome, expected, strict=True) for p in zip(a, b, strict=True)]
    return f"to {max(abs(a / b - 1) for a, b in pairs):.0e}"


OFFLOAD = Table(
    (
        Column("weights", "weights"),
        Column("stage", "stage"),
        Column("windows × tokens", "size"),
        CARD,
        Column("s", "seconds", ".1f"),
        Column("target × none", "slowest"),
        Column("× none", "ratio", ".2f", target="slowest"),
        Column("target GiB", "gib"),
        Column("GiB", "peak_gib", ".2f", target="gib"),
        Column("host GiB", "host_gib", ".1f"),
        Column("same result", "same"),
    ),
    offload_rows,
)


def marginal_rows(results: Results) -> Iterator[Row]:
    """Yield all presets; files of version 0.1 have no preset, and their seconds another name."""
    for name in sorted(results):
        if not name.startswith("marginal-"):
            continue
        result = results[name]
        whole = result["shape"] == "7b" and result["blocks"] == 32
        each, preset = result["seconds_an_iteration"], result.get("preset", "first")
        # The numbers of iterations are today's, which may have changed after the measurement.
        iterations = EqualMarginals(preset).resolved
        seconds = [iterations[f"{unit}_iterations"] * each[unit] for unit in each]
        yield {
            **result,
            "subject": name.removeprefix("marginal-").replace("-", ", "),
            "size": f"{_size(result)}, {result['batch']}",
            "each": " / ".join(f"{seconds:.2f}" for seconds in each.values()),
            "projected": result["seconds_before_iterations"] + sum(seconds),
            "target": MARGINAL_SECONDS.get(preset) if whole else None,
            "gib": MARGINAL_GIB[result["offload"]] if whole else None,
        }


MARGINAL = Table(
    (
        Column("shape, dtype, preset, offload", "subject"),
        Column("windows × tokens, batch", "size"),
        CARD,
        Column("s an iteration (linear / row)", "each"),
        Column("s before", "seconds_before_iterations", ".1f"),
        Column("target s", "target"),
        Column("s, projected", "projected", ".2f", target="target"),
        Column("target GiB", "gib"),
        Column("GiB", "peak_gib", ".2f", target="gib"),
    ),
    marginal_rows,
)


def fisher_rows(results: Results) -> Iterator[Row]:
    for name in sorted(results):
        if not name.startswith("fisher-"):
            continue
        result = results[name]
        whole = result["shape"] == "7b" and result["blocks"] == 32 and result["offload"] == "none"
        seconds, gib = FISHER_TARGETS[result["form"]] if whole else (None, None)
        yield {
            **result,
            "subject": name.removeprefix("fisher-").replace("-", ", "),
            "size": f"{result['rounds']} × 8 × {result['seqlen']}, {result['batch']}",
            "target": seconds,
            "gib": gib,
        }


FISHER = Table(
    (
        Column("shape, dtype, form", "subject"),
        Column("rounds × windows × tokens, batch", "size"),
        CARD,
        Column("s before", "seconds_before_rounds", ".2f"),
        Column("s a round", "seconds_a_round", ".2f"),
        Column("target s", "target"),
        Column("s", "seconds", ".2f", target="target"),
        Column("target GiB", "gib"),
        Column("GiB", "peak_gib", ".2f", target="gib"),
    ),
    fisher_rows,
)
