"""Packed records: one file gives the same tables as the folder of records."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from neuroal.errors import UserError
from neuroal.records.schema import Record
from neuroal.records.store import save_record
from neuroal.tables import formats
from neuroal.tables.cases import Case, Expected
from neuroal.tables.packed import Origin, origin_of, pack, unpacked
from neuroal.tables.reading import all_records, read_records
from neuroal.tables.report import report, write_report
from neuroal.tables.selection import Selection
from neuroal.tables.study import study, tables
from tests.synthetic import fill, record

TASKS = ("ptb", "rte", "boolq")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    names = ("uniform", "owl", "neuroal")
    fill(path, ("zoo/llama",), competitors=names, sparsities=(0.6,), seeds=(0, 1), tasks=TASKS)
    return path


def test_a_packed_file_gives_the_tables_and_plots_of_its_folder(folder: Path) -> None:
    path = folder.parent / "records.parquet"
    pack(all_records(folder), path, Origin())
    one, other = study(folder), study(path)
    for form in formats.FORMATS.values():
        assert [form(table) for table in tables(one)] == [form(table) for table in tables(other)]
    assert report(one, tables(one)) == report(other, tables(other))  # with the plots
    narrow = Selection(overrides=(({"seed": 1},),), tasks=frozenset(["ptb"]))
    frames = [read_records(source, narrow).results for source in (folder, path)]
    pd.testing.assert_frame_equal(*frames)
    assert set(frames[0]["seed"]) == {1}


def test_a_packed_file_is_much_smaller_than_its_records(folder: Path) -> None:
    path = folder.parent / "records.parquet"
    size = pack(all_records(folder), path, Origin())
    assert size == path.stat().st_size
    assert 4 * size < sum(entry.stat().st_size for entry in folder.glob("*.json"))


def test_the_order_of_the_records_does_not_change_the_file(folder: Path) -> None:
    records = all_records(folder)
    pack(records, folder.parent / "one.parquet", Origin("command"))
    pack(records[::-1], folder.parent / "two.parquet", Origin("command"))
    files = [(folder.parent / f"{name}.parquet").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_folders_of_the_machine_are_left_out_and_the_method_is_not(tmp_path: Path) -> None:
    fields = record(competitor="neuroal").to_dict()
    fields["config"] |= {"out": "/home/someone/runs", "data": {"root": "/home/someone/data"}}
    fields["data"] = {"ptb": {"source": "ptb", "fingerprint": "ab", "origin": "/home/someone/ptb"}}
    fields["plan"]["report"]["trace"] = [0.5] * 1000
    original = Record.from_dict(fields)
    pack([original], tmp_path / "records.parquet", Origin())
    (restored,) = unpacked(tmp_path / "records.parquet")
    assert "someone" not in json.dumps(restored.to_dict())
    assert restored.data == {"ptb": {"source": "ptb", "fingerprint": "ab"}}
    for name in ("metrics", "costs", "environment", "sparsity", "identity", "context", "version"):
        assert getattr(restored, name) == getattr(original, name)
    for group in ("pruner", "topup", "refine", "sparsity", "calibration", "model", "seed", "rules"):
        assert restored.config[group] == original.config[group]
    assert restored.plan["report"] == {
        name: value for name, value in original.plan["report"].items() if name != "trace"
    }


def test_an_infinite_perplexity_stays_infinite(tmp_path: Path) -> None:
    fields = record().to_dict()
    fields["metrics"]["wikitext2"]["pruned"] |= {"value": math.inf, "stderr": math.nan}
    pack([Record.from_dict(fields)], tmp_path / "records.parquet", Origin())
    assert read_records(tmp_path / "records.parquet").results["value"][0] == math.inf


def test_a_file_names_its_command_and_the_cases_of_its_grid(tmp_path: Path) -> None:
    case, other = (Case("zoo/llama", "wanda", "70 %", task) for task in ("ptb", "c4"))
    expected = Expected((case, other), ("uniform",), (0, 1), {other: "no data"}, frozenset(["c4"]))
    origin = Origin("neuroal-grid run", expected.to_dict(), {record().identity: "uniform(x=1)"})
    pack([record()], tmp_path / "records.parquet", origin)
    restored = origin_of(tmp_path / "records.parquet")
    assert dataclasses.replace(restored, expected={}) == dataclasses.replace(origin, expected={})
    assert Expected.from_dict(restored.expected) == expected


def test_a_report_of_a_packed_file_links_to_no_records(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    save_record(record(), tmp_path / "runs")
    pack([record()], path, Origin())
    for source, links in ((tmp_path / "runs", True), (path, False)):
        data = study(source)
        page = write_report(data, tables(data), source, tmp_path / "page").read_text()
        assert (".json" in page) == links
        assert data.costs["identity"][0] in page


def test_a_wrong_count_of_zeros_is_refused_as_in_a_folder(tmp_path: Path) -> None:
    fields = record(sparsity=0.7).to_dict()
    fields["sparsity"] = {"overall": 0.5, "linears": dict.fromkeys(fields["masks"], 0.5)}
    pack([Record.from_dict(fields)], tmp_path / "records.parquet", Origin())
    with pytest.raises(UserError, match=r"records\.parquet: its masks prune 0\.5000"):
        read_records(tmp_path / "records.parquet")


def test_a_file_that_holds_no_records_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.parquet: cannot be read"):
        read_records(tmp_path / "nowhere.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    save_record(record(), tmp_path)
    (tmp_path / "table.parquet").write_bytes(formats.parquet(tables(study(tmp_path))[0]))
    for name in ("damaged", "table"):
        for read in (unpacked, origin_of):
            with pytest.raises(UserError, match="holds no packed records") as caught:
                read(tmp_path / f"{name}.parquet")
            assert "\n" not in str(caught.value)
