"""`experiments/results.py`: the files in `results` follow from the packed records."""

from __future__ import annotations

import dataclasses
import re
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile

import pandas as pd
import pytest

from neuroal.tables.cases import expected_from
from neuroal.tables.combinations import ALL_TEXTS, combinations_table, means_over_texts
from neuroal.tables.labels import label
from neuroal.tables.packed import Origin, pack
from neuroal.tables.reading import all_records, read_records
from neuroal.tables.study import Study
from neuroal.tables.table import Table
from tests.synthetic import fill, record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import results as script  # noqa: E402

RECORDS = ROOT / "results" / "records"
NAMES = ("uniform", "owl", "neuroal")
LARGEST = 8 * 2**20
"""Bytes of all packed records together."""


def publish(folder: Path, grid: str, **options: object) -> None:
    """Write the packed records of a small grid to `folder`."""
    runs = folder.parent.parent / f"runs-{grid}"
    choices = {"models": ("zoo/llama",), "pruners": ("wanda",), "sparsities": (0.7,)}
    fill(runs, **(choices | {"competitors": NAMES} | options))  # type: ignore[arg-type]
    expected = expected_from(read_records(runs).results)
    command = f"neuroal-grid run experiment={grid} data.root=DATA out=runs"
    pack(all_records(runs), folder / f"{grid}.parquet", Origin(command, expected.to_dict()))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "results"
    publish(folder / "records", "zoo", tasks=("ptb", "rte", "boolq"))
    publish(folder / "records", "zoo_seeds", tasks=("ptb",), seeds=(1, 2))
    publish(folder / "records", "zoo_alps", tasks=("ptb",), pruners=("alps",))
    publish(folder / "records", "real", tasks=("ptb",), models=("a",), sparsities=(0.5, 0.7))
    publish(folder / "records", "alps", tasks=("ptb", "wikitext2"), pruners=("wanda", "alps"))
    reference = [record(competitor=name, tasks=("ptb",), rules="reference") for name in NAMES]
    pack(reference, folder / "records" / "zoo_reference.parquet", Origin())
    for name in script.PAGES:
        copyfile(ROOT / "results" / name, folder / name)
    script.write_results(folder, folder)
    return folder


def pages(folder: Path) -> str:
    """Return the text of all pages with marked tables."""
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in script.PAGES)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "records")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_all_files_are_made_and_a_second_time_to_the_same_bytes(
    published: Path, tmp_path: Path
) -> None:
    before = contents(published)
    for name in ("zoo", "zoo_seeds", "zoo_alps", "zoo_reference", "real", "alps"):
        assert {f"tables/{name}.md", f"tables/{name}.csv"} <= before.keys()
    assert {"README.md", "alps.md", "report.html"} <= before.keys()
    assert any(re.fullmatch(r"plots/zoo-wanda-.*\.svg", name) for name in before)
    paths = script.write_results(published, tmp_path)
    assert contents(tmp_path) == before
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == before.keys()


def test_the_text_between_the_tables_stays_and_the_tables_are_filled(published: Path) -> None:
    source, page = map(pages, (ROOT / "results", published))
    marks = re.compile(r"(<!-- table: [\w-]+ -->\n).*?(<!-- end -->)", re.DOTALL)
    assert marks.sub(r"\1\2", page) == marks.sub(r"\1\2", source)
    filled = {
        name
        for name, text in re.findall(r"<!-- table: ([\w-]+) -->\n(.*?)<!-- end", page, re.DOTALL)
        if text != "Not measured.\n"
    }
    assert {"records", "rules", "seeds", "rivals-perplexity", "losses", "chance-zoo"} <= filled
    assert {"relative-zoo", "relative-to-dense", "performance-runtime"} <= filled
    assert {"relative-real", "by-sparsity-real", "relative-alps", "combinations-alps"} <= filled
    assert "| [zoo](tables/zoo.md) | 3 | 9 of 9 |" in page


def of_all_texts(cells: pd.DataFrame, data: Study) -> Table:
    return combinations_table(means_over_texts(cells), data.costs, ALL_TEXTS, data.expected)


def test_the_table_of_all_pairs_has_the_geometric_mean_over_the_texts(published: Path) -> None:
    data = script.read(published / "records" / "alps.parquet")
    values = data.results.set_index(["pruner", "competitor", "task"])["value"]
    means = (values.xs("ptb", level="task") * values.xs("wikitext2", level="task")) ** 0.5
    rows = {tuple(c.text for c in row[1:3]): row[3] for row in of_all_texts(data.cells, data).rows}
    expected = {tuple(map(label, pair)): value for pair, value in means.items()}
    assert {pair: cell.value for pair, cell in rows.items()} == pytest.approx(expected, rel=1e-9)
    best = [pair for pair, cell in rows.items() if cell.standing == 1]
    assert best == [min(expected, key=expected.__getitem__)]


def test_a_pair_that_lacks_a_text_has_no_mean(published: Path) -> None:
    data = script.read(published / "records" / "alps.parquet")
    lacking = (data.cells["competitor"] == "owl") & (data.cells["task"] == "ptb")
    cells = data.cells.assign(value=data.cells["value"].mask(lacking))
    rows = of_all_texts(cells, data).rows
    assert {row[2].text for row in rows} == {"Uniform", "NeuroAL"}


def test_every_table_with_records_has_its_place_in_a_page() -> None:
    page = pages(ROOT / "results")
    marks = re.findall(r"<!-- table: ([\w-]+) -->", page)
    assert len(marks) == len(set(marks))
    assert set(marks) <= {*script.PARTS, "records", "plots"}
    present = {path.stem for path in RECORDS.glob("*.parquet")}
    without = {n for n in script.PARTS if n.rpartition("-")[2] in {*script.GRIDS} - present}
    assert {*script.PARTS} - without <= {*marks}
    assert "Not measured." not in page


def test_means_over_the_cases_of_a_grid_leave_out_those_that_a_top_up_lacks(
    tmp_path: Path,
) -> None:
    publish(tmp_path / "results" / "records", "real", tasks=("ptb",), sparsities=(0.5, 0.7))
    data = script.read(tmp_path / "results" / "records" / "real.parquet")
    lacking = (data.results["competitor"] == "owl") & (data.results["sparsity"] == "70 %")
    part = dataclasses.replace(data, results=data.results[~lacking])
    counts = [
        [row[-2].text for row in script.relative_tables({"real": each})["relative-real"].rows]
        for each in (data, part)
    ]
    assert all(text.endswith(" of 2") for text in counts[0])
    assert all(text.endswith(" of 1") for text in counts[1])


def test_a_page_names_command_device_and_versions(published: Path) -> None:
    page = (published / "tables" / "zoo.md").read_text()
    assert "neuroal-grid run experiment=zoo data.root=DATA out=runs\n" in page
    assert "\nCPU, 1 threads; Python 3; commit unknown.\n" in page
    assert "3 records" in page


def test_a_plot_needs_no_font_of_the_machine(published: Path) -> None:
    plots = list((published / "plots").glob("*.svg"))
    families = {f for path in plots for f in re.findall(r"font-family: ([^;]+)", path.read_text())}
    assert families == {"'DejaVu Sans', sans-serif"}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.mark.slow
def test_the_committed_results_are_those_of_the_committed_records(tmp_path: Path) -> None:
    versions = pinned()
    for name in ("matplotlib", "numpy", "pandas", "pyarrow", "scipy", "contourpy"):
        if version(name) != versions[name]:
            pytest.skip(f"{name} {version(name)} is not that of constraints.txt")
    records = list((ROOT / "results" / "records").glob("*.parquet"))
    assert sum(path.stat().st_size for path in records) <= LARGEST
    paths = script.write_results(ROOT / "results", tmp_path)
    generated = {path.relative_to(tmp_path).as_posix() for path in paths}
    for folder in ("tables", "plots"):
        present = {
            p.relative_to(ROOT / "results").as_posix()
            for p in (ROOT / "results" / folder).glob("*")
        }
        assert present == {name for name in generated if name.startswith(f"{folder}/")}
    different = [
        name
        for name in sorted(generated)
        if (ROOT / "results" / name).read_bytes() != (tmp_path / name).read_bytes()
    ]
    assert not different, "run 'make results' and commit"
