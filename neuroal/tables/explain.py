"""What one run pruned: a page with the densities, the rows that kept most and the search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuroal.config.naming import competitor, method_name, model_name, sparsity_name
from neuroal.evaluation.task_table import KINDS
from neuroal.files.atomic import write_bytes
from neuroal.records.schema import Record
from neuroal.tables import explain_plots, formats
from neuroal.tables.labels import label
from neuroal.tables.reading import Curve, curves_of
from neuroal.tables.table import Cell, Table, figure_cell, number

MOST_ROWS = 10
"""Number of rows listed as those that kept most."""
DENSITY_NOTE = "Density is the share of weights that are kept; means count every linear equally."


@dataclass(frozen=True)
class Explanation:
    """What one run pruned, in tidy form.

    Attributes:
        title: model, pruner, top-up and sparsity.
        results: lines on the tasks of the record.
        densities: columns ``block``, ``kind`` and ``density``; the mean of experts of one kind.
        rows: columns ``linear``, ``row`` and ``density`` of the plan; empty if rows do not differ.
        curves: steps of the search over λ; empty if there was none.
        measured: name → series that the top-up reports, by block or by iteration.
    """

    title: str
    results: tuple[str, ...]
    densities: pd.DataFrame
    rows: pd.DataFrame
    curves: tuple[Curve, ...]
    measured: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, record: Record) -> Explanation:
        config = record.config
        names = (method_name("pruner", config["pruner"]), competitor(config))
        parts = [label(name) for name in (model_name(config), *names)]
        return cls(
            title=f"{', '.join(parts)}, {sparsity_name(config)}",
            results=tuple(_results(record)),
            densities=_densities(record.sparsity["linears"]),
            rows=_rows(record.plan["ratios"]),
            curves=tuple(curves_of(record.plan)),
            measured=_measured(record.plan.get("report") or {}),
        )

    def tables(self) -> list[Table]:
        """Return the tables that apply to this run."""
        return [density_table(self), *row_tables(self), *search_tables(self)]

    def figures(self) -> dict[str, explain_plots.Drawing]:
        """Return name → drawing of the plots that apply to this run."""
        drawings = {"density": explain_plots.density_by_kind(self.densities)}
        if len(self.rows):
            rows = self.rows.assign(kind=self.rows["linear"].map(kind_of))
            drawings["rows"] = explain_plots.density_of_rows(rows)
        if self.curves:
            drawings["criterion"] = explain_plots.criterion(self.curves)
        return drawings


def _results(record: Record) -> Iterator[str]:
    zeros = record.sparsity["overall"]
    yield f"{zeros:.4f} of the prunable weights are zero."
    for task, entry in record.metrics.items():
        kind = KINDS[entry["kind"]]
        dense, pruned = (entry[model][kind.figure] for model in ("dense", "pruned"))
        texts = [number(value, entry["kind"]) for value in (dense, pruned)]
        limit = f" (limit {entry['limit']})" if entry["limit"] is not None else ""
        yield f"{label(task)}, {kind.label}{limit}: {texts[0]} dense, {texts[1]} pruned."


def kind_of(linear: str) -> str:
    """Return the kind of a linear: its name without block and expert, as in ``mlp.up_proj``."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", linear.partition(".")[2])


def _densities(sparsities: Mapping[str, float]) -> pd.DataFrame:
    rows = [
        {"block": int(linear.partition(".")[0]), "kind": kind_of(linear), "density": 1 - sparsity}
        for linear, sparsity in sparsities.items()
    ]
    means = pd.DataFrame(rows).groupby(["block", "kind"], sort=False)["density"].mean()
    return means.reset_index().sort_values("block", kind="stable", ignore_index=True)


def _rows(ratios: Mapping[str, Any]) -> pd.DataFrame:
    """Return the density of every row of the linears whose rows differ, densest first."""
    rows = [
        {"linear": linear, "row": row, "density": 1 - ratio}
        for linear, of_rows in ratios.items()
        if isinstance(of_rows, list) and max(of_rows) - min(of_rows) > 1e-9
        for row, ratio in enumerate(of_rows)
    ]
    frame = pd.DataFrame(rows, columns=["linear", "row", "density"])
    return frame.sort_values("density", ascending=False, kind="stable", ignore_index=True)


def _measured(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the series of a top-up's report, except those of a search over λ."""
    return {
        name: [float(value) for value in series]
        for name, series in report.items()
        if isinstance(series, list)
        and len(series) > 1
        and not name.startswith(("candidates_", "criterion_"))
        and all(isinstance(value, int | float) for value in series)
    }


def density_table(explanation: Explanation) -> Table:
    """Return density by block (rows) and kind of linear (columns), with means."""
    wide = explanation.densities.pivot(index="block", columns="kind", values="density")
    kinds = list(dict.fromkeys(explanation.densities["kind"]))
    wide = wide[kinds].assign(mean=wide.mean(axis=1))
    wide.loc["mean"] = wide.mean()
    rows = tuple(
        (Cell(str(block)), *(_share(value) for value in values))
        for block, values in zip(wide.index, wide.to_numpy(), strict=True)
    )
    return Table(
        name="density",
        title=f"Density by block and kind of linear, in percent: {explanation.title}",
        heads=("block", *kinds, "mean"),
        labels=1,
        rows=rows,
        data=explanation.densities,
        notes=(DENSITY_NOTE, *explanation.results),
        groups=frozenset({len(rows) - 1}),
    )


def _share(value: float) -> Cell:
    return figure_cell(value, f"{100 * value:.1f}")


def row_tables(explanation: Explanation) -> Iterator[Table]:
    """Yield the rows that kept most, if the plan is by row."""
    rows = explanation.rows
    if not len(rows):
        return
    empty = int((rows["density"] < 1e-9).sum())
    share = rows["density"].quantile([0.05, 0.5, 0.95])
    texts = [f"{100 * value:.1f} %" for value in share]
    yield Table(
        name="rows",
        title=f"Rows that kept most: {explanation.title}",
        heads=("linear", "row", "density (%)"),
        labels=1,
        rows=tuple(
            (Cell(str(row.linear)), Cell(str(row.row), float(row.row)), _share(float(row.density)))
            for row in rows.head(MOST_ROWS).itertuples()
        ),
        data=rows,
        notes=(
            f"Of {len(rows):,} rows, 5 % keep less than {texts[0]} of their weights, half less "
            f"than {texts[1]}, and 5 % more than {texts[2]}; {empty:,} keep none.",
        ),
    )


def search_tables(explanation: Explanation) -> Iterator[Table]:
    """Yield the criterion of every candidate, or the series that the top-up reports."""
    data = pd.DataFrame(
        [
            {"step": curve.step, "lambda": x, "criterion": value, "chosen": x == curve.winner}
            for curve in explanation.curves
            for x, value in zip(curve.candidates, curve.criteria, strict=True)
        ]
    )
    if len(data):
        yield Table(
            name="criterion",
            title=f"Criterion by λ (lower is better): {explanation.title}",
            heads=("step", "λ", "criterion"),
            labels=1,
            rows=tuple(
                (
                    Cell(f"{row['step']}s"),
                    Cell(f"{row['lambda']:g}", row["lambda"]),
                    Cell(f"{row['criterion']:.5g}", row["criterion"], standing=int(row["chosen"])),
                )
                for row in data.to_dict("records")
            ),
            data=data,
            notes=("The chosen λ is marked.",),
        )
    if explanation.measured:
        yield _measured_table(explanation)


def _measured_table(explanation: Explanation) -> Table:
    series = explanation.measured
    data = pd.DataFrame(
        [
            {"series": name, "position": position, "value": value}
            for name, values in series.items()
            for position, value in enumerate(values)
        ]
    )
    heads = ("series", "values", "first", "lowest", "highest", "last")
    return Table(
        name="measured",
        title=f"What the top-up measured, by block or iteration: {explanation.title}",
        heads=heads,
        labels=1,
        rows=tuple(
            (
                Cell(name),
                Cell(str(len(values)), float(len(values))),
                *(
                    Cell(f"{value:.4g}", value)
                    for value in (values[0], min(values), max(values), values[-1])
                ),
            )
            for name, values in series.items()
        ),
        data=data,
    )


CAPTIONS = {
    "density": "Density by block and kind of linear",
    "rows": "Density of the rows, by kind of linear: median, quartiles, 5th and 95th percentile",
    "criterion": "Criterion by λ, relative to the lowest, with a ring around the chosen one",
}
"""Name of a plot → caption."""


def page(tables: Sequence[Table], plots: Sequence[str], title: str) -> str:
    """Return the page in Markdown; `plots` are names of plots beside it."""
    images = [f"![{CAPTIONS[name]}]({name}.svg)\n\n{CAPTIONS[name]}.\n" for name in plots]
    return "\n".join([f"## {title}\n", *map(formats.markdown, tables), *images])


def latex_page(tables: Sequence[Table], plots: Sequence[str], title: str) -> str:
    r"""Return the page in LaTeX; needs ``booktabs``, ``longtable`` and ``graphicx``."""
    figures = [
        f"\\begin{{figure}}\n\\centering\n\\includegraphics[width=0.7\\linewidth]{{{name}.pdf}}\n"
        f"\\caption{{{formats.escaped(f'{CAPTIONS[name]}: {title}.')}}}\\label{{fig:{name}}}\n"
        "\\end{figure}\n"
        for name in plots
    ]
    return "\n".join([*map(formats.latex, tables), *figures])


def write_explanation(explanation: Explanation, folder: Path) -> list[Path]:
    """Write the page in Markdown and LaTeX, data as CSV, plots as SVG and PDF; return the paths."""
    tables, drawings = explanation.tables(), explanation.figures()
    names, title = list(drawings), explanation.title
    contents: dict[str, bytes] = {
        "explained.md": page(tables, names, title).encode(),
        "explained.tex": latex_page(tables, names, title).encode(),
    }
    contents |= {f"{table.name}.csv": formats.csv(table).encode() for table in tables}
    for name, drawing in drawings.items():
        contents |= {f"{name}.svg": drawing.svg, f"{name}.pdf": drawing.pdf}
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]
