"""From results/marginal.csv to the tables and the plot of results/marginal.md."""

from __future__ import annotations

import re
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("agg")
import matplotlib.pyplot as plt
from studies import STUDIES, TIMED

from neuroal.tables.labels import label

TASKS = {task: label(task) for task in ("wikitext2", "ptb", "c4_sample")}
BASELINES = ("neuroal both, 8 windows", "neuroal both, 64 windows")
MARK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_page(rows: pd.DataFrame, page: Path) -> None:
    """Replace what stands between the marks ``<!-- NAME -->`` and ``<!-- end -->`` of `page`."""
    rows = rows[rows["error"].isna()].drop_duplicates(["study", "name"], keep="last")
    makers = {"quality": quality, "ratios": ratios}

    def fill(found: re.Match[str]) -> str:
        make = makers.get(found[2])
        table = make(rows) if make else study(rows, found[2])
        return f"{found[1]}{table}\n{found[3]}"

    page.write_text(MARK.sub(fill, page.read_text()))
    plot(rows, page.with_suffix(".png"))


def study(rows: pd.DataFrame, name: str) -> str:
    """All runs of one study, in its order: perplexity on each text, and seconds if alone."""
    found = rows[rows["study"] == name].set_index("name")
    found = found.loc[[run for run in STUDIES[name] if run in found.index]].reset_index()
    columns = ["name", *TASKS, *(["allocate"] if name in TIMED else [])]
    found["allocate"] = found["allocate"].where(found["jobs"] == 1)
    return markdown(found[columns].rename(columns={**TASKS, "allocate": "seconds"}))


def _qualities(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs of the study of all ratios, with columns ``ratio`` and ``top-up``."""
    found = rows[rows["study"] == "quality"].copy()
    found[["ratio", "top-up"]] = found["name"].str.split(": ", n=1, expand=True)
    return found


def quality(rows: pd.DataFrame) -> str:
    """Perplexity on WikiText-2 of every top-up at every ratio."""
    found = _qualities(rows)
    order = list(dict.fromkeys(found["top-up"]))
    wide = found.pivot(index="top-up", columns="ratio", values="wikitext2").loc[order]
    return markdown(wide.reset_index())


def ratios(rows: pd.DataFrame) -> str:
    """Perplexity of equal marginals over that of the better of NeuroAL's two, on every text."""
    lines = []
    for ratio, group in _qualities(rows).groupby("ratio"):
        by_name = group.set_index("top-up")
        if not {"marginal both", *BASELINES} <= set(by_name.index):
            continue
        line: dict[str, object] = {"sparsity": ratio}
        for task, title in TASKS.items():
            best = min(by_name.loc[name, task] for name in BASELINES)
            line[title] = f"{by_name.loc['marginal both', task] / best:.3f}"
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def markdown(table: pd.DataFrame) -> str:
    """A pipe table; figures in three to five digits."""
    lines = [list(table.columns), ["---", *["---:"] * (len(table.columns) - 1)]]
    lines += [[_shown(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def alone(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The runs of one study that had the device for themselves."""
    return rows[(rows["study"] == name) & (rows["jobs"] == 1)]


def plot(rows: pd.DataFrame, target: Path) -> None:
    """Perplexity against seconds: every top-up, and equal marginals by iterations."""
    found = alone(rows, "seconds")
    if found.empty:
        return
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for (_, row), marker in zip(found.iterrows(), cycle("os^vD<>pP*hX")):
        color = "#D55E00" if row["name"].startswith("marginal") else None
        axes.scatter(
            row["allocate"], row["wikitext2"], marker=marker, color=color, label=row["name"]
        )
    steps = alone(rows, "iterations").sort_values("allocate")
    way = {"color": "#D55E00", "label": "marginal both, by iterations"}
    axes.plot(steps["allocate"], steps["wikitext2"], ".--", **way)
    axes.set(
        xscale="symlog",
        yscale="log",
        xlabel=f"seconds of the allocation ({found['device'].iloc[0]})",
        ylabel="perplexity on WikiText-2",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(target, dpi=120, metadata={"Software": None})
    plt.close(figure)
