"""What runs cost, and what they give for it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from neuroal.tables.cases import CASE, Expected
from neuroal.tables.labels import label
from neuroal.tables.table import MISSING, Cell, Table, number, plain, rules_between

STAGES = ("allocate", "prune")
GIB = 2**30


def costs(runs: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """One row for each run that answers a case.

    Returns:
        The run's key, ``device``, seconds of ``allocate``, ``prune`` and both (``together``), and
        ``peak`` device memory in GiB (NaN where none was measured).
    """
    part = runs[runs["identity"].isin(found["identity"])].reset_index(drop=True)
    for stage in STAGES:
        part[stage] = [float(seconds.get(stage, math.nan)) for seconds in part["seconds"]]
    part["together"] = part[list(STAGES)].sum(axis=1, skipna=False)
    part["peak"] = [
        max((peak.get(stage) or 0 for stage in STAGES), default=0) / GIB or math.nan
        for peak in part["peak_bytes"]
    ]
    return part


def runtime_table(paid: pd.DataFrame, expected: Expected) -> Table:
    """Seconds of allocation and pruning, mean ± deviation over sparsities and seeds.

    Runs on different devices stand in different rows.

    Args:
        paid: from `costs`.
    """
    figures = [*STAGES, "together", "peak"]
    keys = ["model", "pruner", "device", "competitor"]
    groups = dict(iter(paid.groupby(keys, sort=False)))
    rows = []
    for model in expected.axis("model"):
        for pruner in expected.axis("pruner"):
            devices = sorted({str(key[2]) for key in groups if key[:2] == (model, pruner)})
            for device in devices or [MISSING]:
                for name in expected.competitors:
                    part = groups.get((model, pruner, device, name))
                    names = [Cell(label(text)) for text in (model, pruner, device, name)]
                    rows.append((*names, *_figures(part, figures)))
    heads = ("Model", "Pruner", "Device", "Top-up", "Runs", "Allocate, s", "Prune, s")
    tidy = [*keys, "sparsity", "seed", *figures, "identity"]
    return Table(
        name="runtime",
        title="Runtime: seconds to allocate and to prune, and peak memory of the device",
        heads=(*heads, "Together, s", "Peak, GiB"),
        labels=4,
        rows=tuple(rows),
        data=paid[tidy].sort_values(tidy[:-1], ignore_index=True),
        notes=("Mean ± deviation over sparsities and seeds.",),
        groups=rules_between([tuple(cell.text for cell in row[:4]) for row in rows]),
    )


def _figures(part: pd.DataFrame | None, figures: list[str]) -> list[Cell]:
    if part is None:
        return [Cell("0", 0.0), *[Cell(MISSING)] * len(figures)]
    cells = [Cell(str(len(part)), float(len(part)), 0, tuple(sorted(part["identity"])))]
    for figure in figures:
        value, deviation = float(part[figure].mean()), float(part[figure].std())
        spread = "" if math.isnan(deviation) else f" ± {plain(deviation)}"
        missing = math.isnan(value)
        cells.append(Cell(MISSING) if missing else Cell(plain(value) + spread, value))
    return cells


def trade_off(paid: pd.DataFrame, found: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """Performance against runtime of every competitor that answered anything.

    Over the cases and seeds that all of them answered on the same device:
    ``increase`` = geometric mean of perplexity / dense perplexity, ``accuracy`` = mean accuracy,
    ``seconds`` = mean of allocation and pruning together, ``front`` = none is as fast and better.
    """
    found = found[~found["task"].isin(expected.beside)]
    joined = found.merge(paid[["identity", "together", "device"]], on="identity", how="left")
    increase = (joined["value"] / joined["dense"]).where(joined["kind"] == "perplexity")
    joined = joined.assign(log=np.log(increase))
    case = [*CASE, "seed", "device"]
    competing = joined["competitor"].nunique()
    common = joined[joined.groupby(case)["competitor"].transform("nunique") == competing]
    rows = []
    for (device, pruner), group in common.groupby(["device", "pruner"], sort=True):
        for name in expected.competitors:
            part = group[group["competitor"] == name]
            if part.empty:
                continue
            lm = part[part["kind"] == "perplexity"]
            row = {
                "pruner": pruner,
                "competitor": name,
                "device": device,
                "seconds": float(part.drop_duplicates("identity")["together"].mean()),
                "increase": math.exp(float(lm["log"].mean())) if len(lm) else math.nan,
                "accuracy": float(part[part["kind"] == "zero_shot"]["value"].mean()),
                "results": len(part),
            }
            rows.append(row)
    columns = ["pruner", "competitor", "device", "seconds", "increase", "accuracy", "results"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["front"] = [_on_front(frame, row) for _, row in frame.iterrows()]
    order = {name: place for place, name in enumerate(expected.axis("pruner"))}
    ordered = frame.sort_values("pruner", key=lambda names: names.map(order), kind="stable")
    return ordered.reset_index(drop=True)


def _on_front(frame: pd.DataFrame, row: pd.Series) -> bool:
    """By perplexity where there is one, else by accuracy."""
    figure, sign = ("accuracy", -1) if math.isnan(row["increase"]) else ("increase", 1)
    rivals = frame[(frame["pruner"] == row["pruner"]) & (frame["device"] == row["device"])]
    better = (sign * rivals[figure] < sign * row[figure]) & (rivals["seconds"] <= row["seconds"])
    return not bool(better.any())


def trade_off_table(trade: pd.DataFrame) -> Table:
    """`trade_off`, as a table."""
    rows = []
    for _, row in trade.iterrows():
        labels = [Cell(label(str(row[name]))) for name in ("pruner", "device", "competitor")]
        rows.append(
            (
                *labels,
                Cell(plain(row["seconds"]), row["seconds"]),
                _or_missing(row["increase"], "perplexity"),
                _or_missing(row["accuracy"], "zero_shot"),
                Cell(str(row["results"]), float(row["results"])),
                Cell("yes" if row["front"] else "no"),
            )
        )
    heads = ("Pruner", "Device", "Top-up", "Seconds", "Perplexity / dense", "Accuracy, %")
    return Table(
        name="performance-runtime",
        title="Performance against runtime",
        heads=(*heads, "Results", "On the front"),
        labels=3,
        rows=tuple(rows),
        data=trade,
        notes=(
            "Over the results that all top-ups have on one device: geometric mean of perplexity "
            "over dense perplexity, mean accuracy, mean seconds of allocation and pruning. On the "
            "front: none is as fast and better.",
        ),
        groups=rules_between([tuple(cell.text for cell in row[:3]) for row in rows]),
    )


def _or_missing(value: float, kind: str) -> Cell:
    return Cell(MISSING) if math.isnan(value) else Cell(number(value, kind), value)
