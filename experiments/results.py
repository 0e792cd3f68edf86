"""Make every table, plot and page in results/ that comes from the records in results/records.

    python experiments/results.py
    python experiments/results.py --to FOLDER

`neuroal-tables pack` writes the records of a grid to results/records/GRID.parquet. For each grid,
this script writes tables/GRID.md, tables/GRID.csv (a row for each cell) and plots of performance
against runtime; of the grid zoo, it writes report.html. It fills the marked tables of README.md and
alps.md and leaves the other text unchanged. The same records and package versions give the same
bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from bench.page import Column, Part, Row, fill
from bench.page import Table as Columns

from neuroal.files.atomic import write_bytes
from neuroal.tables import findings, formats, plots, rivals
from neuroal.tables.cases import CASE, Case, Expected, answered_by_all
from neuroal.tables.combinations import (
    ALL_TEXTS,
    combinations_table,
    means_over_seeds,
    means_over_texts,
)
from neuroal.tables.figures import file_name, trade_plots
from neuroal.tables.packed import Origin, origin_of, unpacked
from neuroal.tables.relative import relative_by_sparsity, relative_table, relative_to_uniform
from neuroal.tables.report import write_report
from neuroal.tables.runtime import trade_off, trade_off_table
from neuroal.tables.selection import Selection
from neuroal.tables.study import Study, study, tables
from neuroal.tables.table import Table
from neuroal.tables.wins import duels

RESULTS = Path(__file__).resolve().parents[1] / "results"
GRIDS = (
    *("zoo", "zoo_sparsegpt", "zoo_alps", "zoo_seeds", "zoo_reference"),
    *("real", "real_zero_shot", "alps", "alps_seeds", "marginal", "marginal_seeds"),
)
"""Grids with records, in the order of the pages."""
POOLED = ("zoo", "zoo_sparsegpt", "zoo_alps")
"""Grids whose cases the comparisons of README.md count together."""
ALONE = {"zoo", "real_zero_shot"}
"""Grids with zero-shot tasks, which have tables of their own in README.md."""
RECORDS = (
    Column("grid", "grid"),
    Column("records", "records", ","),
    Column("results", "results"),
    Column("MiB", "size", ".2f"),
    Column("device", "device"),
)
PARTS = (
    *("relative-to-dense", "rivals-perplexity", "rivals-zero_shot"),
    *("rivals-by-model", "rivals-by-pruner", "rivals-by-sparsity", "rivals-by-task", "losses"),
    *("rules", "seeds", "performance-runtime"),
    *(f"{name}-{grid}" for name in ("chance", "carry-over") for grid in ("zoo", "real_zero_shot")),
    *(f"relative-{grid}" for grid in (*POOLED, "real", "alps", "marginal_seeds")),
    *("by-sparsity-real", "combinations-alps", "combinations-alps_seeds"),
)
"""Possible marks in `PAGES`, beside ``records`` and ``plots``."""
PAGES = ("README.md", "alps.md")
"""Pages with marked tables."""
DIGITS = "%.10g"
"""Fewer digits than a float has, because the last ones depend on the processor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--to", type=Path, help="folder to write to (default: that of the records)")
    arguments = parser.parse_args()
    for path in write_results(arguments.results, arguments.to or arguments.results):
        print(path)


def write_results(results: Path, to: Path) -> list[Path]:
    """Make the files of all grids with records in `results`; return their paths under `to`."""
    mpl.rcdefaults()
    sources = {name: results / "records" / f"{name}.parquet" for name in GRIDS}
    sources = {name: path for name, path in sources.items() if path.exists()}
    studies = {name: read(path) for name, path in sources.items()}
    contents: dict[str, str] = {}
    drawn: dict[str, dict[str, str]] = {}
    all_tables = {name: tables(data) for name, data in studies.items()}
    for name, data in studies.items():
        contents[f"tables/{name}.md"] = page(name, all_tables[name], sources[name])
        contents[f"tables/{name}.csv"] = csv(data)
        drawn[name] = runtime_plots(name, data)
        contents |= drawn[name]
    built = parts(studies, sources) | {"plots": pictures(drawn.get("zoo", {}))}
    for name in PAGES:
        contents[name] = fill((results / name).read_text(encoding="utf-8"), built, {})
    for relative, text in contents.items():
        write_bytes(to / relative, text.encode())
    paths = [to / relative for relative in contents]
    if "zoo" in studies:
        paths.append(write_report(studies["zoo"], all_tables["zoo"], sources["zoo"], to))
    return paths


def read(path: Path) -> Study:
    """Return the packed records at `path` as a study of the grid that they belong to."""
    origin = origin_of(path)
    expected = Expected.from_dict(origin.expected) if origin.expected else None
    return study(path, Selection(limited=True, names=origin.names), expected)


def page(name: str, own: Sequence[Table], path: Path) -> str:
    """Return the page of a grid: where its records come from, and its tables."""
    shown = [table for table in own if table.rows]
    lines = [f"# The grid {name}", "", *provenance(path), ""]
    return "\n".join([*lines, *map(formats.markdown, shown)])


def provenance(path: Path) -> list[str]:
    """Return the lines that name command, devices and versions of the records at `path`."""
    origin, environments = origin_of(path), [record.environment for record in unpacked(path)]
    versions = {
        f"{name} {version}"
        for environment in environments
        for name, version in environment["packages"].items()
    }
    machines = distinct(environment["device"] for environment in environments)
    pythons = distinct(f"Python {environment['python']}" for environment in environments)
    commits = distinct(str(e["commit"])[:7] for e in environments if e["commit"])
    return [
        f"Made by `make results` from {len(environments):,} records, which are in",
        f"`records/{path.name}` and come from:",
        "",
        *["```sh", command(origin), "```"],
        "",
        f"{machines}; {', '.join([*sorted(versions), pythons])}; commit {commits or 'unknown'}.",
    ]


def command(origin: Origin) -> str:
    return origin.command or "# records of no declared grid"


def distinct(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts)))


def csv(data: Study) -> str:
    """Return the cells of a study, with a header."""
    frame = data.cells.drop(columns=["why"])
    return str(frame.to_csv(index=False, lineterminator="\n", float_format=DIGITS))


def runtime_plots(name: str, data: Study) -> dict[str, str]:
    """Return the path of each plot of performance against runtime → its SVG."""
    return {
        f"plots/{file_name(f'{name}-{pruner}-{device}')}.svg": plots.svg(plot)
        for (pruner, device), plot in trade_plots(data.trade(), data).items()
    }


def parts(studies: Mapping[str, Study], sources: Mapping[str, Path]) -> dict[str, Part]:
    """Return the marked tables of `PAGES` by name; one without its records has no lines."""
    built = relative_tables(studies)
    if "real" in studies:
        built["by-sparsity-real"] = relative_by_sparsity(*pooled([studies["real"]]))
    if "alps" in studies:
        one = studies["alps"]
        built["combinations-alps"] = combinations_table(
            means_over_texts(one.cells), one.costs, ALL_TEXTS, one.expected
        )
    if {"alps", "alps_seeds"} <= set(studies):
        more = studies["alps_seeds"]
        both = pd.concat([studies["alps"].results, more.results], ignore_index=True)
        built["combinations-alps_seeds"] = combinations_table(
            means_over_seeds(both), None, ALL_TEXTS, more.expected
        )
    for name in ALONE & set(studies):
        data = studies[name]
        informative = rivals.without_chance(data.results)
        informative = answered_by_all(informative, data.expected.competitors)
        built[f"chance-{name}"] = findings.chance_table(data.results)
        built[f"carry-over-{name}"] = findings.carry_over_table(informative, data.expected)
    if "zoo" in studies:
        pool = [studies[name] for name in POOLED if name in studies]
        built |= comparisons(pooled(pool))
        built["relative-to-dense"] = findings.dense_table(*pooled([studies["zoo"]]))
        built["performance-runtime"] = trade_off_table(trades(pool))
    if {"zoo", "zoo_reference"} <= set(studies):
        built["rules"] = findings.rules_table(studies["zoo"], studies["zoo_reference"])
    if {"zoo", "zoo_seeds"} <= set(studies):
        seeds = studies["zoo_seeds"]
        zero = studies["zoo"].results
        zero = zero[zero["pruner"].isin(seeds.expected.axis("pruner"))]
        both = pd.concat([zero, seeds.results], ignore_index=True)
        built["seeds"] = findings.seeds_table(both, seeds.expected.competitors)
    texts = {name: lines(built[name]) if name in built else [] for name in PARTS}
    records = Columns(RECORDS, lambda _: records_rows(studies, sources))
    return {"records": records, **{name: constant(text) for name, text in texts.items()}}


def pictures(paths: Iterable[str]) -> Part:
    return constant([f'<img src="{path}" alt="{Path(path).stem}" width="49%">' for path in paths])


def constant(text: Sequence[str]) -> Part:
    return lambda _: text


def lines(table: Table) -> list[str]:
    """Return a table as Markdown without its title; none of its notes is on missing results."""
    text = formats.markdown(dataclasses.replace(table, notes=()))
    return text.splitlines()[2:]


def records_rows(studies: Mapping[str, Study], sources: Mapping[str, Path]) -> list[Row]:
    """Return a row for each grid: its records, results, size and devices."""
    return [
        {
            "grid": f"[{name}](tables/{name}.md)",
            "records": len(data.costs),
            "results": results_of(data),
            "size": sources[name].stat().st_size / 2**20,
            "device": distinct(data.costs["device"]),
        }
        for name, data in studies.items()
    ]


def results_of(data: Study) -> str:
    """Return how many of the results that can be had are there."""
    cells = data.counted
    there = [Case(*case) not in data.expected.unavailable for case in cells[CASE].to_numpy()]
    return f"{cells['seeds'].sum():,} of {cells[there]['wanted'].sum():,}"


def relative_tables(studies: Mapping[str, Study]) -> dict[str, Table]:
    """Return the perplexities relative to uniform pruning of the grids that `PARTS` names.

    A case that some top-up has not answered is left out, so that all means are over the same cases.
    """
    built = {}
    for name, data in studies.items():
        if f"relative-{name}" in PARTS:
            results, expected = pooled([data])
            common = answered_by_all(results, expected.competitors)
            relative = relative_to_uniform(common, expected)
            built[f"relative-{name}"] = relative_table(relative, expected)
    return built


def trades(pool: Sequence[Study]) -> pd.DataFrame:
    """Return performance against runtime on texts, for the pruners of several grids."""
    parts = []
    for data in pool:
        results, expected = pooled([data])
        parts.append(trade_off(data.costs, findings.perplexities(results), expected))
    return pd.concat(parts, ignore_index=True)


def pooled(studies: Sequence[Study]) -> tuple[pd.DataFrame, Expected]:
    """Return the results of several grids without those at chance, and their cases."""
    results = pd.concat([data.results for data in studies], ignore_index=True)
    results = rivals.without_chance(results)
    answered = set(results[CASE].itertuples(index=False, name=None))
    cases = [case for data in studies for case in data.expected.cases if tuple(case) in answered]
    names = [name for data in studies for name in data.expected.competitors]
    return results, Expected(tuple(cases), tuple(dict.fromkeys(names)))


def comparisons(pool: tuple[pd.DataFrame, Expected]) -> dict[str, Table]:
    """Return the tables that compare NeuroAL with all other top-ups."""
    results, expected = pool
    others = [name for name in expected.competitors if name != rivals.NEUROAL]
    gains, pairs = rivals.gains_over_rivals(results, others), duels(results, expected)
    texts = gains[gains["kind"] == "perplexity"]
    tables_of_rivals = [rivals.rivals_table(gains, pairs, kind) for kind in gains["kind"].unique()]
    present = {by: set(texts[by]) for by in CASE}
    axes = {by: [v for v in expected.axis(by) if v in present[by]] for by in CASE}
    splits = [rivals.split_table(texts, by, values) for by, values in axes.items()]
    built = [*tables_of_rivals, *splits, rivals.losses_table(texts, expected)]
    return {table.name: table for table in built}


if __name__ == "__main__":
    main()
