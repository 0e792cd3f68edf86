"""Wins, ties and losses, with significance tests."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, wilcoxon

from neuroal.tables.cases import Case, Expected
from neuroal.tables.study import study
from neuroal.tables.win_tables import wins_table
from neuroal.tables.wins import Duel, bootstrap, duels, holm, sign_test, signed_rank
from tests.synthetic import fill
from tests.tables.rows import result

MODELS = tuple("abcdefghij")


def results(values: dict[str, list[float]], task: str, kind: str) -> pd.DataFrame:
    """Return one result for each competitor and model."""
    rows = [
        result(name, value, model=model, task=task, kind=kind)
        for name, figures in values.items()
        for model, value in zip(MODELS, figures, strict=False)
    ]
    return pd.DataFrame(rows)


def one_duel(frame: pd.DataFrame, kind: str) -> Duel:
    tasks = list(dict.fromkeys(frame["task"]))
    cases = tuple(Case(model, "wanda", "70 %", task) for model in MODELS for task in tasks)
    comparisons = duels(frame, Expected(cases, ("a", "b")))
    return next(duel for duel in comparisons if (duel.one, duel.kind) == ("a", kind))


def test_lower_perplexity_wins_and_higher_accuracy_wins() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 5.0]
    lm = results({"a": a, "b": b}, "ptb", "perplexity")
    duel = one_duel(lm, "perplexity")
    assert (duel.wins, duel.ties, duel.losses, duel.missing) == (2, 1, 1, 6)
    assert duel.cases == 10
    assert duel.share == pytest.approx(2.5 / 4)
    accuracy = one_duel(results({"a": a, "b": b}, "rte", "zero_shot"), "zero_shot")
    assert (accuracy.wins, accuracy.ties, accuracy.losses) == (1, 1, 2)
    both = one_duel(pd.concat([lm, results({"a": a, "b": b}, "rte", "zero_shot")]), "all")
    assert (both.wins, both.ties, both.losses, both.cases) == (3, 2, 3, 20)
    assert math.isnan(both.wilcoxon)


def test_float_noise_of_perplexity_is_a_tie() -> None:
    noise = results({"a": [20.0, 20.0], "b": [20.0001, 20.1]}, "ptb", "perplexity")
    duel = one_duel(noise, "perplexity")
    assert (duel.wins, duel.ties) == (1, 1)


def test_infinite_perplexities_tie_with_each_other_and_lose_otherwise() -> None:
    inf = math.inf
    duel = one_duel(results({"a": [inf, 5.0], "b": [inf, inf]}, "ptb", "perplexity"), "perplexity")
    assert (duel.wins, duel.ties, duel.losses) == (1, 1, 0)


def test_a_case_is_averaged_over_the_seeds_that_both_have() -> None:
    first = results({"a": [1.0], "b": [2.0]}, "ptb", "perplexity")
    second = results({"a": [4.0], "b": [2.0]}, "ptb", "perplexity").assign(seed=1)
    lone = results({"a": [0.1]}, "ptb", "perplexity").assign(seed=2)
    duel = one_duel(pd.concat([first, second, lone]), "perplexity")
    assert (duel.wins, duel.losses) == (0, 1)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (8, 1), (1, 9), (200, 76), (276, 0)])
def test_the_sign_test_is_the_exact_binomial_one(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_wilcoxons_test_drops_ties_and_needs_a_difference() -> None:
    gain = np.array([0.3, -0.1, 0.0, 0.5, 0.2, 0.7])
    assert signed_rank(gain) == pytest.approx(wilcoxon(gain[gain != 0]).pvalue)
    assert math.isnan(signed_rank(np.zeros(5)))


def test_the_bootstrap_is_seeded_and_draws_whole_clusters() -> None:
    points = pd.Series(np.repeat([0.0, 1.0] * 6, 10))
    each = list(range(len(points)))
    whole = [i // 10 for i in range(len(points))]
    assert bootstrap(points, whole, 0) == bootstrap(points, whole, 0)
    skewed = pd.Series(np.arange(120.0) ** 2)
    assert bootstrap(skewed, whole, 0) != bootstrap(skewed, whole, 1)
    low, high = bootstrap(points, whole, 0)
    narrow_low, narrow_high = bootstrap(points, each, 0)
    assert high - low > 2 * (narrow_high - narrow_low)
    # Twelve fair clusters: 0.5 ± 1.96 · 0.5 / √12.
    assert (low, high) == pytest.approx((0.217, 0.783), abs=0.05)
    assert all(math.isnan(end) for end in bootstrap(points[:20], whole[:20], 0))


def test_a_pair_is_compared_once_and_its_reverse_mirrors_it(tmp_path: Path) -> None:
    fill(tmp_path, competitors=("uniform", "neuroal"), sparsities=(0.6, 0.7))
    data = study(tmp_path)
    back = replace(data.expected, competitors=data.expected.competitors[::-1])
    pairs = zip(duels(data.results, data.expected), duels(data.results, back), strict=True)
    for one, other in pairs:
        assert (one.one, other.one, one.kind) == ("uniform", "neuroal", other.kind)
        assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
        assert one.share == pytest.approx(1 - other.share)
        assert one.sign == other.sign
        assert one.cases == len(data.expected.cases) or one.kind != "all"


def test_p_values_are_corrected_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
    assert holm([]) == []


def test_pairs_of_one_kind_are_corrected_together() -> None:
    b = [1.0 + i for i in range(10)]
    values = {
        "a": [v - 0.5 for v in b],
        "b": b,
        "c": [v + 0.01 * (-1) ** i for i, v in enumerate(b)],
    }
    frame = pd.concat(
        [
            results(values, "ptb", "perplexity"),
            results({"a": b, "b": b, "c": b}, "rte", "zero_shot"),
        ]
    )
    cases = tuple(Case(model, "wanda", "70 %", task) for model in MODELS for task in ("ptb", "rte"))
    by_pair = {(d.one, d.other, d.kind): d for d in duels(frame, Expected(cases, ("a", "b", "c")))}
    first = by_pair["a", "b", "perplexity"]
    assert first.sign == pytest.approx(2 / 2**10)
    assert first.sign_holm == pytest.approx(3 * first.sign)  # the smallest of three pairs
    assert by_pair["b", "c", "perplexity"].sign_holm == 1.0
    assert by_pair["a", "b", "zero_shot"].sign_holm == 1.0
    assert math.isnan(by_pair["a", "b", "all"].wilcoxon_holm)


def test_the_matrix_has_each_pair_once_and_marks_significant_ones() -> None:
    b = [1.0 + i for i in range(10)]
    frame = results({"a": [v - 0.5 for v in b], "b": b, "c": [*b[:9], 99.0]}, "ptb", "perplexity")
    cases = tuple(Case(model, "wanda", "70 %", "ptb") for model in MODELS)
    table = wins_table(duels(frame, Expected(cases, ("a", "b", "c"))), ("a", "b", "c"))
    texts = [[cell.text for cell in row] for row in table.rows]
    assert table.heads == ("Of", "Top-up", "a", "b", "c")
    assert texts == [
        ["perplexity", "a", "", "10/0/0", "10/0/0"],
        ["perplexity", "b", "0.0059", "", "1/9/0"],
        ["perplexity", "c", "0.0059", "1", ""],
    ]
    assert [cell.standing for row in table.rows for cell in row] == [0] * 7 + [1] + [0] * 4 + [
        1,
        0,
        0,
    ]


def test_a_task_without_results_counts_as_missing() -> None:
    frame = results({"a": [1.0], "b": [2.0]}, "ptb", "perplexity")
    cases = tuple(Case("a", "wanda", "70 %", task) for task in ("ptb", "c4", "rte"))
    by_kind = {d.kind: d for d in duels(frame, Expected(cases, ("a", "b"))) if d.one == "a"}
    counted = {kind: (duel.cases, duel.missing) for kind, duel in by_kind.items()}
    assert counted == {"all": (3, 2), "perplexity": (2, 1), "zero_shot": (1, 1)}
