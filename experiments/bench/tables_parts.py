"""The table of several devices, and the table and the plot of where a second goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.devices import SECONDS
from bench.page import CARD, Column, Results, Row, Table, named
from bench.profile import PARTS
from neuroal.tables.plots import COLOURS, SETTINGS, figure, svg

SPEED_UPS = {
    (2, "search"): 1.78,
    (2, "fisher"): 1.7,
    (2, "marginal"): 1.7,
    (4, "search"): 3.2,
    (4, "fisher"): 3.0,
    (4, "marginal"): 3.0,
    (4, "search", "sparsegpt"): 3.0,
}
"""Number of devices and stage → target; with a pruner, that of this pruner."""
GRID_SPEED_UPS = {2: 1.85, 4: 3.5}
"""Number of cards → target."""
NAMES = {"marginal": "marginal, an iteration", "evaluate": "perplexity"}
AGREEMENT = {True: "to the last bit", False: "up to rounding"}
"""Whether the result on several devices equals that on one."""


def devices_rows(results: Results) -> Iterator[Row]:
    """Yield every stage on several devices beside the same stage on one."""
    for name, several in results.items():
        count = several.get("devices", 0)
        if not name.startswith("devices-") or count < 2:
            continue
        subject = name.removeprefix(f"devices-{count}-")
        for stage in several["report"]:
            seconds = several[stage][SECONDS.get(stage, "seconds")]
            alone, equal = several[stage].get("alone"), several[stage].get("equal")
            speed_up = alone and alone / seconds
            target = SPEED_UPS.get(
                (count, stage, several.get("pruner")), SPEED_UPS.get((count, stage))
            )
            yield {
                "device": several.get("device"),
                "subject": subject.replace("-", ", "),
                "stage": NAMES.get(stage, stage),
                "devices": count,
                "one": alone,
                "seconds": seconds,
                "target": target,
                "shown": _shown(speed_up, target),
                "gib": several[stage].get("peak_bytes", 0) / 2**30 or None,
                "same": equal if equal is None else AGREEMENT[equal],
            }


def grid_rows(results: Results) -> Iterator[Row]:
    """Yield every grid, compared with the same one on one card of the same kind."""
    alone = dict(named(results, "grid-1-"))
    for name, result in named(results, "grid-"):
        subject = name.partition(", ")[2]
        one = alone.get(subject)
        rate, target = _rate(result), GRID_SPEED_UPS.get(result["cards"])
        speed_up = whole = None
        if one is not None and result["cards"] > 1 and one["device"] == result["device"]:
            speed_up = rate / _rate(one)
            whole = one["seconds"] / result["seconds"] * result["runs"] / one["runs"]
        yield {
            **result,
            "subject": subject.rpartition(", ")[0],
            "rate": rate,
            "target": target,
            "shown": _shown(speed_up, target),
            "whole": whole,
        }


def _shown(speed_up: float | None, target: float | None) -> str | None:
    """Return a speed-up as printed, marked if it is below its target."""
    if speed_up is None:
        return None
    return f"{speed_up:.2f}" + (" (missed)" if target and speed_up < target else "")


def _rate(grid: Mapping[str, Any]) -> float:
    """Return the runs per second after every worker may have finished its first run."""
    return float(grid["steady_runs"] / grid["steady_seconds"])


GRID = Table(
    (
        Column("models", "subject"),
        Column("workers a card", "workers"),
        Column("cards", "cards"),
        CARD,
        Column("runs", "runs"),
        Column("first record after, s", "first_seconds", ".1f"),
        Column("runs/s", "rate", ".3g"),
        Column("target ×", "target"),
        Column("speed-up", "shown"),
        Column("in all, s", "seconds", ".1f"),
        Column("speed-up in all", "whole", ".2f"),
    ),
    grid_rows,
)


def starts(results: Results) -> Iterator[str]:
    """Yield how long devices took to start, and to receive a copy of the model."""
    for name, result in results.items():
        if "start_seconds" in result:
            yield (
                f"- {name}: the processes were connected after {result['start_seconds']:.1f} s; "
                f"the model was on every device {result['copy_seconds']:.1f} s later."
            )


DEVICES = Table(
    (
        Column("shape, pruner, dtype", "subject"),
        Column("stage", "stage"),
        Column("devices", "devices"),
        CARD,
        Column("s on one", "one", ".2f"),
        Column("s", "seconds", ".2f"),
        Column("target ×", "target"),
        Column("speed-up", "shown"),
        Column("GiB", "gib", ".2f"),
        Column("result", "same"),
    ),
    devices_rows,
)


def profile_rows(results: Results) -> Iterator[Row]:
    for name, result in results.items():
        if name.startswith("profile-"):
            yield {**result, **{part: f"{result['shares'][part]:.0%}" for part in PARTS}}


PROFILE = Table(
    (
        Column("stage", "stage"),
        Column("shape", "shape"),
        Column("blocks", "blocks"),
        Column("s", "seconds", ".2f"),
        *(Column(part, part) for part in PARTS),
    ),
    profile_rows,
)


def draw_profile(results: Results, path: Path) -> None:
    """Draw a stacked bar of the parts of every stage; do nothing where nothing was measured."""
    stages = [result for name, result in results.items() if name.startswith("profile-")]
    if not stages:
        return
    with mpl.rc_context(SETTINGS):
        drawn, axes = figure((6.5, 0.6 + 0.34 * len(stages)))
        lefts = [0.0] * len(stages)
        for part, colour in zip(PARTS, (*COLOURS[:5], "#c8ccd2"), strict=True):
            shares = [stage["shares"][part] for stage in stages]
            axes.barh(range(len(stages)), shares, left=lefts, color=colour, label=part, height=0.7)
            lefts = [left + share for left, share in zip(lefts, shares, strict=True)]
        axes.set_yticks(range(len(stages)), [stage["stage"] for stage in stages])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="y", visible=False)
        drawn.legend(loc="outside upper center", ncols=len(PARTS), frameon=False)
        path.write_text(svg(drawn))
