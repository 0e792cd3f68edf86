"""`experiments/benchmark.py`: a measurement is stored once and shown in the tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from bench import cpu  # noqa: E402
from bench.common import Store  # noqa: E402
from bench.devices import STAGES, compared  # noqa: E402
from bench.page import CARD, Column, Table, blank, fill  # noqa: E402
from bench.profile import PARTS as SHARES  # noqa: E402
from bench.profile import by_kind  # noqa: E402
from bench.search import VARIANTS  # noqa: E402
from bench.tables import PARTS as TABLES  # noqa: E402
from bench.tables_memory import MARGINAL as MARGINAL_TABLE  # noqa: E402
from bench.tables_memory import OFFLOAD as OFFLOAD_TABLE  # noqa: E402
from bench.tables_memory import agreement  # noqa: E402
from bench.tables_parts import devices_rows, draw_profile  # noqa: E402
from bench.tables_search import search_differences  # noqa: E402

from tests.experiments.bench_command import Bench  # noqa: E402

SHORT = ["--windows", "2", "--seqlen", "16"]
OFFLOAD = ["offload", "tiny-none", "tiny-blocks", "tiny-disk", *SHORT]
MARGINAL = ["marginal", "--shape", "tiny", "--dtype", "float32", "--iterations", "2", "2", *SHORT]
DEVICES = ["devices", "--shape", "tiny", "--dtype", "float32", *SHORT, "--batch", "1"]


def test_devices_are_timed_stage_by_stage(bench: Bench) -> None:
    few = ["--gradient-windows", "8", "--search-windows", "2", "--iterations", "3"]
    one, two = bench(*DEVICES, *few).values()
    if one["devices"] == 2:
        one, two = two, one
    assert "start_seconds" not in one
    assert two["start_seconds"] > 0
    assert two["copy_seconds"] > 0
    assert "exchange_seconds" not in one
    assert all(seconds > 0 for seconds in two["exchange_seconds"].values())
    for stage in STAGES:
        assert two[stage]["seconds"] > 0
        assert "compile_seconds" in two[stage]
    assert {stage for stage in STAGES if two[stage]["equal"]} >= {"search", "prune", "evaluate"}


def test_the_speed_up_is_that_of_the_stage_that_is_named() -> None:
    one = {"prune": {"seconds": 9.0, "seconds_of_stage": 8.0}, "report": {"prune": 1}}
    two = {"devices": 2, "prune": {"seconds": 7.0, "seconds_of_stage": 5.0}, "report": {"prune": 2}}
    two["prune"] |= compared("prune", 2, one)  # type: ignore[operator, assignment]
    (row,) = devices_rows({"devices-2-7b-wanda": two})
    assert (row["subject"], row["devices"], row["shown"]) == ("7b, wanda", 2, "1.60")
    assert row["same"] == "up to rounding"
    slow = {"devices": 2, "search": {"seconds": 6.0}, "report": {"search": 1}}
    alone = {"search": {"seconds": 9.0}, "report": {"search": 1}}
    slow["search"] |= compared("search", 1, alone)  # type: ignore[operator, assignment]
    (row,) = devices_rows({"devices-2-7b": slow})
    assert (row["shown"], row["same"]) == ("1.50 (missed)", "to the last bit")
    assert compared("fisher", 1, alone) == {}


def test_the_time_of_a_gpu_is_divided_by_kind_of_kernel(tmp_path: Path) -> None:
    kernels = [
        ("nvjet_hsh_192x192", 0.0, 4.0),
        ("_select_rows", 5.0, 6.0),  # one second after the product
        ("cudnn_sdpa_sm90_flash_fprop", 6.0, 7.0),
        ("_square_sums", 6.5, 8.0),  # half a second beside the attention
        ("triton_poi_fused_mul_silu", 8.0, 10.0),
    ]
    parts = by_kind(kernels)
    shares = parts["shares"]
    assert parts["gaps"][0] == (1.0, "nvjet_hsh_192x192", "_select_rows")
    assert tuple(shares) == SHARES
    assert shares == pytest.approx(
        {
            "attention": 0.1,
            "products": 0.4,
            "selection": 0.1,
            "statistics": 0.1,
            "rest": 0.2,
            "idle": 0.1,
        }
    )
    draw_profile({"profile-x": {"stage": "x", "shares": shares}}, tmp_path / "plot.svg")
    assert "statistics" in (tmp_path / "plot.svg").read_text()


def test_a_profile_without_a_gpu_ends_in_one_line(bench: Bench) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=r"^profile: needs a GPU"):
        bench("profile")


def test_offloading_changes_no_result(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    results = bench(*OFFLOAD)
    homes, stages = ("none", "blocks", "disk"), ("search", "perplexity", "prune")
    assert set(results) == {f"offload-tiny-{home}-{stage}" for home in homes for stage in stages}
    assert all(each["seconds"] > 0 and each["host_gib"] > 0 for each in results.values())
    assert "built in" in capsys.readouterr().out

    assert bench(*OFFLOAD) == results
    out = capsys.readouterr().out
    assert out.count("kept") == len(results)
    assert "built in" not in out

    rows = [line for line in bench.table() if line.startswith("| tiny-")]
    assert len(rows) == len(results)
    for line in rows:
        assert line.endswith("| – |" if line.startswith("| tiny-none") else "| yes |")


PARTS = {
    "search": {f"search-{name}-tiny-wanda-float32" for name in VARIANTS}
    | {"dense-tiny-wanda-float32"},
    "prune": {f"prune-{name}-tiny-float32" for name in ("magnitude", "wanda", "multiflow")},
    "evaluate": {f"evaluate-batch{size}-tiny-float32" for size in (1, 4, 8)},
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_stores_all_its_measurements(bench: Bench, part: str) -> None:
    assert set(bench(part, "--shape", "tiny", "--dtype", "float32", *SHORT)) == PARTS[part]


def test_only_a_missing_stage_is_measured_again(bench: Bench) -> None:
    results = bench("offload", "tiny-blocks", *SHORT)
    (bench.folder / "offload-tiny-blocks-prune.json").unlink()
    again = bench("offload", "tiny-blocks", *SHORT)
    assert again.keys() == results.keys()
    for name, each in results.items():
        assert again[name]["found"] == each["found"]
        assert (again[name] == each) == (not name.endswith("prune"))


def test_an_unknown_measurement_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench("offload", "7b-cloud")
    assert "7b-cloud: must be one of 7b-none" in capsys.readouterr().err


def test_equal_marginals_have_the_same_result_offloaded(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(*MARGINAL)
    results = bench(*MARGINAL, "--offload", "blocks")
    plain, offloaded = (results[f"marginal-tiny-float32{end}"] for end in ("", "-blocks"))
    assert plain["divergence"] == pytest.approx(offloaded["divergence"], rel=1e-5)
    each = plain["seconds_an_iteration"]
    assert plain["projected"] == pytest.approx(
        plain["seconds_before_iterations"] + 25 * each["linear"] + 60 * each["row"]
    )

    capsys.readouterr()
    assert bench(*MARGINAL) == results
    assert "marginal-tiny-float32: kept" in capsys.readouterr().out
    shown = [line.split(" | ")[0] for line in bench.table() if "float32" in line]
    assert shown == ["| tiny, float32", "| tiny, float32, blocks"]


def test_experts_are_compared_with_a_dense_block(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--hidden", "64", "--inner", "48", "--experts", "4", "--top", "2", "--repeat", "1"]
    name = "experts-wanda-4x48x64-top2-float32"
    results = bench("experts", *size, *SHORT, "--dtype", "float32")
    assert set(results) == {f"{name}-dense", f"{name}-routed"}
    dense, routed = results[f"{name}-dense"], results[f"{name}-routed"]
    assert dense["weights"] == 3 * 64 * 96  # the attention stays dense
    assert routed["weights"] == 4 * 3 * 64 * 48
    ratio = routed["weights_per_second"] / dense["weights_per_second"]
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"routed ÷ dense: {ratio:.2f} (at least 0.5)"
    assert any("wanda, 4x48x64-top2, float32" in line for line in bench.table())


def test_a_preset_is_timed_with_its_start(bench: Bench) -> None:
    (result,) = bench(*MARGINAL, "--preset", "fast").values()
    each = result["seconds_an_iteration"]
    assert list(each) == ["row"]
    assert result["projected"] == pytest.approx(
        result["seconds_before_iterations"] + 16 * each["row"]
    )
    assert any(line.startswith("| tiny, float32, fast | ") for line in bench.table())


def test_fisher_has_the_same_losses_offloaded(bench: Bench) -> None:
    fisher = ["fisher", "--shape", "tiny", "--dtype", "float32", *SHORT]
    bench(*fisher)
    results = bench(*fisher, "--offload", "blocks")
    plain, offloaded = (results[f"fisher-tiny-float32-factored{end}"] for end in ("", "-blocks"))
    assert plain["loss"] == pytest.approx(offloaded["loss"], rel=1e-5)
    assert 0 < plain["seconds_a_round"] < plain["seconds"]
    shown = [line.split(" | ")[0] for line in bench.table() if "factored" in line]
    assert shown == ["| tiny, float32, factored", "| tiny, float32, factored, blocks"]


def test_a_missed_target_is_marked() -> None:
    column = Column("s", "seconds", ".2f", target="most")
    texts = [column.cell({"seconds": s, "most": m}) for s, m in ((5.1, 5), (5.0, 5), (9.0, None))]
    assert texts == ["5.10 (missed)", "5.00", "9.00"]
    assert column.cell({"most": 5}) == "–"
    assert column.cell({"seconds": "five", "most": None}) == "five"


def test_a_card_has_a_short_name() -> None:
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA H200", "CPU, 2 threads", None)
    assert [CARD.cell({"device": name}) for name in names] == ["H100", "H200", "–", "–"]


def test_offloading_is_compared_only_for_the_same_windows_and_versions() -> None:
    size = {"windows": 8, "seqlen": 2048, "host_gib": 13.0, "found": 2.0}
    plain = {**size, "seconds": 10.0, "peak_gib": 16.0}
    slow = {**size, "seconds": 14.0, "peak_gib": 5.5}
    names = ("offload-7b-none-perplexity", "offload-7b-blocks-perplexity")
    *_, row = OFFLOAD_TABLE(dict(zip(names, (plain, slow), strict=True)))
    assert "| 1.3 | 1.40 (missed) | 5 | 5.50 (missed) | 13.0 | yes |" in row
    for change in ({"windows": 2}, {"packages": {"neuroal": "0.1.0"}}):
        *_, row = OFFLOAD_TABLE(dict(zip(names, (plain | change, slow), strict=True)))
        assert "| 1.3 | – | 5 |" in row
        assert row.endswith("| 13.0 | – |")


def test_criteria_of_different_versions_are_not_compared() -> None:
    report = {f"criterion_{step}": [1.0, 2.0] for step in ("block", "row")} | {"lambda_block": 0.1}
    search = {"report": report, "lambda_block": 0.1, "lambda_row": 0.1}
    names = ("search-exact-7b", "search-exact-uncompiled-7b")
    assert len(list(search_differences(dict.fromkeys(names, search)))) == 1
    old = search | {"packages": {"neuroal": "0.1.0"}}
    assert not list(search_differences(dict(zip(names, (search, old), strict=True))))


def test_criteria_that_differ_by_more_than_the_target_are_marked() -> None:
    def search(criterion: float) -> dict[str, Any]:
        report = {"criterion_block": [criterion], "criterion_row": [1.0], "lambda_block": 0.1}
        return {"report": report, "lambda_block": 0.1, "lambda_row": 0.1}

    names = ("search-exact-7b", "search-exact-uncompiled-7b")
    for other, marked in ((1.0005, False), (1.002, True)):
        results = dict(zip(names, (search(1.0), search(other)), strict=True))
        (line,) = search_differences(results)
        assert ("(target 1e-3, missed)" in line) is marked


def test_equal_marginals_have_targets_at_full_size() -> None:
    result = {
        "shape": "7b", "dtype": "float16", "offload": "blocks", "blocks": 32, "windows": 64,
        "seqlen": 2048, "batch": 8, "seconds_an_iteration": {"linear": 2.0, "row": 2.5},
        "seconds_before_iterations": 11.0, "projected": 211.0, "peak_gib": 23.0,
    }  # fmt: skip
    *_, line = MARGINAL_TABLE({"marginal-7b-float16-blocks": result})
    assert line.endswith("| 11.0 | 200.0 | 211.00 (missed) | 24.0 | 23.00 |")


def test_agreement_reports_the_largest_relative_difference() -> None:
    assert agreement([[1.0, 2.0], [4.0]], [[1.0, 2.0], [4.0]]) == "yes"
    assert agreement([[1.0, 2.0], [4.4]], [[1.0, 2.0], [4.0]]) == "to 1e-01"
    assert agreement(1.01, 1.0) == "to 1e-02"
    assert agreement("ab", "cd") == "NO"


def test_only_text_between_marks_changes() -> None:
    table = Table((Column("name", "name"), Column("s", "s", ".1f")), lambda r: r.values())
    page = (
        "Before\n<!-- table: one -->\nold\n<!-- end -->\nbetween\n<!-- table: two -->\n<!-- end -->"
    )
    text = fill(page, {"one": table, "two": lambda _: []}, {"a": {"name": "a", "s": 1.25}})
    rows = "| name | s |\n|---|---|\n| a | 1.2 |"
    assert text == page.replace("old", rows).replace("two -->\n", "two -->\nNot measured.\n")
    with pytest.raises(SystemExit, match="one: must be one of two"):
        fill(page, {"two": table}, {})


def test_the_committed_page_has_every_table_and_is_up_to_date() -> None:
    page = ROOT / "results" / "benchmark.md"
    text = page.read_text()
    assert fill(text, TABLES, Store(ROOT / "results" / "benchmark").results()) == text
    for name in TABLES:
        assert text.count(f"<!-- table: {name} -->") == 1
        assert f"<!-- table: {name} -->" in blank(TABLES)


def test_the_cpu_benchmark_prepares_a_search() -> None:
    loaded, recipe, tokens = cpu.prepare(["model=zoo/llama"])
    assert loaded.name == "zoo/llama"
    assert recipe.topup.name == "neuroal"
    assert tokens.shape == (8, 256)
