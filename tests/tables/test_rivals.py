"""NeuroAL against its rivals: counts and sizes worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import pytest

from neuroal.tables.cases import Case, Expected
from neuroal.tables.rivals import (
    gains_over_rivals,
    losses_table,
    rivals_table,
    split_table,
    without_chance,
)
from neuroal.tables.table import Table
from neuroal.tables.wins import duels
from tests.tables.rows import result

MODELS = ("a", "b", "c", "d")


def results(
    values: Mapping[str, tuple[float, ...]], task: str = "ptb", kind: str = "perplexity"
) -> pd.DataFrame:
    """Return a result of each competitor for each of `MODELS`; two pruners in turn."""
    pruners = ("magnitude", "wanda")
    rows = [
        result(name, value, model=model, pruner=pruners[number % 2], task=task, kind=kind)
        for name, figures in values.items()
        for number, (model, value) in enumerate(zip(MODELS, figures, strict=True))
    ]
    return pd.DataFrame(rows)


def expected_of(frame: pd.DataFrame) -> Expected:
    columns = list(Case._fields)
    cases = frame[columns].drop_duplicates().itertuples(index=False, name=None)
    return Expected(tuple(Case(*case) for case in cases), tuple(frame["competitor"].unique()))


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


TEXTS = results({"neuroal": (10, 20, 30, 40), "owl": (20, 20, 60, 20), "dlp": (40,) * 4})
"""Against OWL: two wins at half, a tie, a loss at double."""


def test_wins_ties_losses_and_the_factor_are_counted_once_for_each_case() -> None:
    gains = gains_over_rivals(TEXTS, ["owl", "dlp"])
    table = rivals_table(gains, duels(TEXTS, expected_of(TEXTS)), "perplexity")
    owl, dlp = texts(table)
    assert owl[:7] == ["OWL", "4", "2", "1", "1", "1", f"{2 ** (-1 / 4):.3f}"]
    factor = math.exp((math.log(1 / 4) + math.log(1 / 2) + math.log(3 / 4)) / 4)
    assert dlp[:5] == ["DLP", "4", "3", "1", "0"]
    assert dlp[6] == f"{factor:.3f}"
    assert owl[7] == "–"  # too few pruned models for an interval
    assert owl[8] == "0.500 to 1.189"  # quartiles of the factors 0.5, 0.5, 1, 2 on a log scale


def test_accuracies_are_compared_in_points() -> None:
    frame = results(
        {"neuroal": (0.6, 0.6, 0.5, 0.5), "owl": (0.5, 0.5, 0.5, 0.6)}, "rte", "zero_shot"
    )
    gains = gains_over_rivals(frame, ["owl"])
    (row,) = texts(rivals_table(gains, duels(frame, expected_of(frame)), "zero_shot"))
    assert row[:5] == ["OWL", "4", "2", "1", "1"]
    assert row[6] == "+2.50"


def test_cases_are_split_by_any_of_their_fields() -> None:
    gains = gains_over_rivals(TEXTS, ["owl"])
    assert texts(split_table(gains, "pruner", ["magnitude", "wanda", "alps"])) == [
        ["OWL", "2 of 2 · 0.500", "0 of 2 · 1.414", "–"]
    ]
    by_model = texts(split_table(gains, "model", MODELS))[0]
    assert by_model[1:] == ["1 of 1 · 0.500", "0 of 1 · 1.000", "1 of 1 · 0.500", "0 of 1 · 2.000"]


def test_losses_name_where_and_the_worst_case() -> None:
    gains = gains_over_rivals(TEXTS, ["owl", "dlp"])
    owl, dlp = texts(losses_table(gains, expected_of(TEXTS)))
    worst = "d, Wanda, 70 %, PTB: × 2.000"
    assert owl == ["OWL", "1 of 4", "Wanda 1 of 2", "70 % 1 of 4", worst]
    assert dlp == ["DLP", "0 of 4", "–", "–", "–"]


def test_an_infinite_perplexity_is_the_worst_and_two_of_them_tie() -> None:
    frame = results({"neuroal": (10, math.inf, 10, 10), "owl": (math.inf, math.inf, 20, 5)})
    gains = gains_over_rivals(frame, ["owl"])
    (row,) = texts(rivals_table(gains, duels(frame, expected_of(frame)), "perplexity"))
    assert row[:5] == ["OWL", "4", "2", "1", "1"]
    assert row[6] == "0.000"  # the rival lost everything in one case


def test_tasks_at_chance_are_left_out_by_model() -> None:
    frame = results({"neuroal": (0.5,) * 4, "owl": (0.4,) * 4}, "winogrande", "zero_shot")
    frame.loc[frame["model"] == "b", "dense"] = 0.6
    left = without_chance(pd.concat([frame, TEXTS], ignore_index=True))
    assert set(left.loc[left["kind"] == "zero_shot", "model"]) == {"b"}
    assert set(left.loc[left["kind"] == "perplexity", "model"]) == set(MODELS)


@pytest.mark.parametrize("rival", ["fisher", "neuroal"])
def test_a_rival_without_results_or_the_method_itself_has_no_wins(rival: str) -> None:
    gains = gains_over_rivals(TEXTS, [rival])
    assert not (gains["gain"] != 0).any()
