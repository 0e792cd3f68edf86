"""Runtime and memory of runs, and performance against runtime."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd

from neuroal.tables.cases import CASE, Expected
from neuroal.tables.table import (
    MISSING,
    Cell,
    Table,
    figure_cell,
    label_cells,
    number,
    plain,
    rules_between,
)

STAGES = ("allocate", "prune")
"""Stages whose costs are compared."""
GIB = 2**30


def costs(runs: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Return the `runs` that answer a case, with their costs.

    Costs are the seconds of ``allocate``, ``prune`` and both (``together``), and the ``peak``
    device memory in GiB (NaN if it was not measured).
    """
    part = runs[runs["identity"].isin(results["identity"])].reset_index(drop=True)
    for stage in STAGES:
        part[stage] = [float(seconds.get(stage, math.nan)) for seconds in part["seconds"]]
    part["together"] = part[list(STAGES)].sum(axis=1, skipna=False)
    part["peak"] = [
        max((peak.get(stage) or 0 for stage in STAGES), default=0) / GIB or math.nan
        for peak in part["peak_bytes"]
    ]
    return part


def runtime_table(run_costs: pd.DataFrame, expected: Expected) -> Table:
    """Return seconds and memory of allocation and pruning, as mean ± standard deviation.

    Averages over sparsities and seeds. Runs on different devices have separate rows.
    """
    columns = [*STAGES, "together", "peak"]
    keys = ["model", "pruner", "device", "competitor"]
    groups = dict(iter(run_costs.groupby(keys, sort=False)))
    rows = []
    for model, pruner in product(expected.axis("model"), expected.axis("pruner")):
        devices = sorted({str(key[2]) for key in groups if key[:2] == (model, pruner)})
        for key in product([model], [pruner], devices or [MISSING], expected.competitors):
            rows.append((*label_cells(*key), *_cells(groups.get(key), columns)))
    heads = ("Model", "Pruner", "Device", "Top-up", "Runs", "Allocate, s", "Prune, s")
    tidy = [*keys, "sparsity", "seed", *columns, "identity"]
    return Table(
        name="runtime",
        title="Runtime: seconds to allocate and to prune, and peak memory of the device",
        heads=(*heads, "Together, s", "Peak, GiB"),
        labels=4,
        rows=tuple(rows),
        data=run_costs[tidy].sort_values(tidy[:-1], ignore_index=True),
        notes=("Mean ± standard deviation over sparsities and seeds.",),
        groups=rules_between(rows, 3),
    )


def _cells(part: pd.DataFrame | None, columns: list[str]) -> list[Cell]:
    """Return the number of runs, then mean ± standard deviation of `columns`."""
    if part is None:
        return [Cell("0", 0.0), *[Cell(MISSING)] * len(columns)]
    cells = [Cell(str(len(part)), float(len(part)), 0, tuple(sorted(part["identity"])))]
    for column in columns:
        value, deviation = float(part[column].mean()), float(part[column].std())
        error = "" if math.isnan(deviation) else f" ± {plain(deviation)}"
        cells.append(figure_cell(value, plain(value) + error))
    return cells


def trade_off(run_costs: pd.DataFrame, results: pd.DataFrame, expected: Expected) -> pd.DataFrame:
    """Return performance against runtime of every competitor with results.

    Averages over the cases and seeds that all of them answered on the same device:
    ``increase`` = geometric mean of perplexity / dense perplexity, ``accuracy`` = mean accuracy,
    ``seconds`` = median seconds of allocation and pruning, ``results`` = number of results,
    ``front`` = whether no other competitor is both better and at least as fast.
    """
    results = results[~results["task"].isin(expected.beside)]
    joined = results.merge(run_costs[["identity", "together", "device"]], on="identity", how="left")
    increase = (joined["value"] / joined["dense"]).where(joined["kind"] == "perplexity")
    joined = joined.assign(log=np.log(increase))
    case = [*CASE, "seed", "device"]
    competitors = joined["competitor"].nunique()
    common = joined[joined.groupby(case)["competitor"].transform("nunique") == competitors]
    rows = []
    for (device, pruner), group in common.groupby(["device", "pruner"], sort=True):
        for name in expected.competitors:
            part = group[group["competitor"] == name]
            if part.empty:
                continue
            texts = part[part["kind"] == "perplexity"]
            row = {
                "pruner": pruner,
                "competitor": name,
                "device": device,
                "seconds": float(part.drop_duplicates("identity")["together"].median()),
                "increase": math.exp(float(texts["log"].mean())) if len(texts) else math.nan,
                "accuracy": float(part[part["kind"] == "zero_shot"]["value"].mean()),
                "results": len(part),
            }
            rows.append(row)
    columns = ["pruner", "competitor", "device", "seconds", "increase", "accuracy", "results"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["front"] = [_on_front(frame, row) for _, row in frame.iterrows()]
    order = {name: position for position, name in enumerate(expected.axis("pruner"))}
    ordered = frame.sort_values("pruner", key=lambda names: names.map(order), kind="stable")
    return ordered.reset_index(drop=True)


def _on_front(frame: pd.DataFrame, row: pd.Series) -> bool:
    """Return whether no competitor is both better and at least as fast.

    Compares perplexity if there is one, else accuracy.
    """
    figure, sign = ("accuracy", -1) if math.isnan(row["increase"]) else ("increase", 1)
    rivals = frame[(frame["pruner"] == row["pruner"]) & (frame["device"] == row["device"])]
    better = (sign * rivals[figure] < sign * row[figure]) & (rivals["seconds"] <= row["seconds"])
    return not bool(better.any())


def trade_off_table(trade: pd.DataFrame) -> Table:
    """Return the rows of `trade_off` as a table; accuracy has a column if there is any."""
    with_accuracy = bool(trade["accuracy"].notna().any())
    rows = []
    for _, row in trade.iterrows():
        accuracy = figure_cell(row["accuracy"], number(row["accuracy"], "zero_shot"))
        rows.append(
            (
                *label_cells(row["pruner"], row["device"], row["competitor"]),
                Cell(plain(row["seconds"]), row["seconds"]),
                figure_cell(row["increase"], number(row["increase"], "perplexity")),
                *([accuracy] if with_accuracy else []),
                Cell(str(row["results"]), float(row["results"])),
                Cell("yes" if row["front"] else "no"),
            )
        )
    accuracy_head = ["Accuracy, %"] if with_accuracy else []
    heads = ["Pruner", "Device", "Top-up", "Seconds", "Perplexity / dense", *accuracy_head]
    return Table(
        name="performance-runtime",
        title="Performance against runtime",
        heads=(*heads, "Results", "On the front"),
        labels=3,
        rows=tuple(rows),
        data=trade,
        notes=(
            "Over the cases that all top-ups answered on one device: geometric mean of perplexity "
            "divided by dense perplexity, mean accuracy, median seconds of allocation and pruning. "
            "On the front: no other top-up is both better and at least as fast.",
        ),
        groups=rules_between(rows, 2),
    )
