"""`experiments/benchmark.py`: a measurement leaves a file, is made once, and is in the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import benchmark
from bench.cells import verdict
from bench.ideas import IDEAS
from bench.search import VARIANTS
from bench.table_memory import alike, marginal, offload_row

SHORT = ["--windows", "2", "--seqlen", "16"]
OFFLOAD = ["offload", "tiny-none", "tiny-blocks", "tiny-disk", *SHORT]
MARGINAL = ["marginal", "--shape", "tiny", "--dtype", "float32", "--iterations", "2", "2", *SHORT]


class Bench:
    """The command line, with its files in a folder of the test's."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder / "found", patch

    def __call__(self, *options: str) -> dict[str, dict[str, Any]]:
        """Every measurement that is there after the call."""
        command = ["benchmark.py", *options, "--results", str(self.folder)]
        self._patch.setattr(sys, "argv", command)
        benchmark.main()
        return {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.json")}

    def table(self) -> list[str]:
        self("table")
        return (self.folder.parent / "found.md").read_text().splitlines()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_offloading_changes_no_result(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(*OFFLOAD)
    places, stages = ("none", "blocks", "disk"), ("search", "perplexity", "prune")
    assert set(found) == {f"offload-tiny-{place}-{stage}" for place in places for stage in stages}
    assert all(each["seconds"] > 0 and each["host_gib"] > 0 for each in found.values())
    assert "made in" in capsys.readouterr().out

    assert bench(*OFFLOAD) == found
    out = capsys.readouterr().out
    assert out.count("kept") == len(found)
    assert "made in" not in out

    rows = [line for line in bench.table() if line.startswith("| tiny-")]
    assert len(rows) == len(found)
    for line in rows:
        assert line.endswith("| – |" if line.startswith("| tiny-none") else "| yes |")


PARTS = {
    "search": {f"search-{name}-tiny-wanda-float32" for name in VARIANTS}
    | {"dense-tiny-wanda-float32"},
    "prune": {f"prune-{name}-tiny-float32" for name in ("magnitude", "wanda", "multiflow")},
    "ideas": {f"idea-{name}-tiny-float32" for name in IDEAS},
    "evaluate": {f"evaluate-batch{size}-tiny-float32" for size in (1, 4, 8)},
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_measures_all_it_names(bench: Bench, part: str) -> None:
    assert set(bench(part, "--shape", "tiny", "--dtype", "float32", *SHORT)) == PARTS[part]


def test_a_model_is_made_again_for_the_stage_that_is_missing(bench: Bench) -> None:
    found = bench("offload", "tiny-blocks", *SHORT)
    (bench.folder / "offload-tiny-blocks-prune.json").unlink()
    again = bench("offload", "tiny-blocks", *SHORT)
    assert again.keys() == found.keys()
    for name, each in found.items():
        assert again[name]["found"] == each["found"]
        assert (again[name] == each) == (not name.endswith("prune"))


def test_an_unknown_measurement_is_refused(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench("offload", "7b-cloud")
    assert "7b-cloud: must be one of 7b-none" in capsys.readouterr().err


def test_equal_marginals_find_the_same_offloaded(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(*MARGINAL)
    found = bench(*MARGINAL, "--offload", "blocks")
    plain, offloaded = (found[f"marginal-tiny-float32{end}"] for end in ("", "-blocks"))
    assert plain["divergence"] == pytest.approx(offloaded["divergence"], rel=1e-5)
    each = plain["seconds_an_iteration"]
    assert plain["projected_25_60"] == pytest.approx(
        plain["seconds_before_iterations"] + 25 * each["linear"] + 60 * each["row"]
    )

    capsys.readouterr()
    assert bench(*MARGINAL) == found
    assert "marginal-tiny-float32: kept" in capsys.readouterr().out
    shown = [line.split(" | ")[0] for line in bench.table() if "float32" in line]
    assert shown == ["| tiny, float32", "| tiny, float32, blocks"]


def test_a_missed_target_is_called_so() -> None:
    assert (verdict(5.1, 5), verdict(5.0, 5), verdict(9.0, None)) == (
        "5.10 (missed)",
        "5.00",
        "9.00",
    )
    size = {"windows": 8, "seqlen": 2048, "host_gib": 13.0, "found": 2.0}
    plain = {**size, "seconds": 10.0, "peak_gib": 16.0}
    slow = {**size, "seconds": 14.0, "peak_gib": 5.5}
    shown = offload_row("7b-blocks", "perplexity", slow, plain)
    assert "| 1.3 | 1.40 (missed) | 5 | 5.50 (missed) | 13.0 | yes |" in shown
    other = {**plain, "windows": 2}
    assert "| 1.3 | – | 5 |" in offload_row("7b-blocks", "perplexity", slow, other)

    found = {
        "shape": "7b", "dtype": "float16", "offload": "blocks", "blocks": 32, "windows": 64,
        "seqlen": 2048, "batch": 8, "seconds_an_iteration": {"linear": 2.0, "row": 2.5},
        "seconds_before_iterations": 11.0, "projected_25_60": 211.0, "peak_gib": 23.0,
    }  # fmt: skip
    *_, line = marginal({"marginal-7b-float16-blocks": found})
    assert line.endswith("| 11.0 | 200.0 | 211.00 (missed) | 24.0 | 23.00 |")


def test_results_are_alike_to_a_digit() -> None:
    assert alike([[1.0, 2.0], [4.0]], [[1.0, 2.0], [4.0]]) == "yes"
    assert alike([[1.0, 2.0], [4.4]], [[1.0, 2.0], [4.0]]) == "to 1e-01"
    assert alike(1.01, 1.0) == "to 1e-02"
    assert alike("ab", "cd") == "NO"
