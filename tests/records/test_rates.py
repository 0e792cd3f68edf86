"""Seconds of earlier runs are kept in a file that many workers extend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuroal.records import rates
from neuroal.records.rates import Observation, keep, kept_observations


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep rates in an empty folder."""
    monkeypatch.setenv(rates.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_observations_of_workers_that_end_together_are_all_kept() -> None:
    def keep_many(worker: int) -> None:
        for number in range(20):
            keep([Observation("card", "m", "load", worker + 1.0, number + 1.0)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_many, range(4)))
    assert len(kept_observations()) == 80


def test_the_file_of_observations_does_not_grow_without_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rates, "MOST_LINES", 3)
    for number in range(20):
        assert keep([Observation("card", "m", "load", 1.0, float(number))])
    seconds = [o.seconds for o in kept_observations()]
    assert len(seconds) <= 6
    assert seconds[-1] == 19.0


def test_a_line_that_was_cut_off_spoils_no_later_one(cache: Path) -> None:
    cache.mkdir()
    rates.rates_path().write_text('{"card": "ca')
    keep([Observation("card", "m", "load", 1.0, 1.0)])
    assert [o.card for o in kept_observations()] == ["card"]


def test_lines_of_another_layout_are_left_out(cache: Path) -> None:
    keep([Observation("card", "m", "load", 1.0, 1.0)])
    with rates.rates_path().open("a") as file:
        file.write("{}\nnonsense\n")
    assert [o.card for o in kept_observations()] == ["card"]
