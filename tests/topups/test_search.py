"""Searches that leave something out: what they find, and what they say of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroal.errors import UserError
from neuroal.pruners.budget import Allotment, Rules
from neuroal.topups.neuroal import NeuroAL, block_plan
from neuroal.topups.search import Choice, Known, choose
from tests.tiny import allocation_context, random_tokens, tiny_llama

CONTEXT = allocation_context(tiny_llama())
REFERENCE = allocation_context(CONTEXT.subject, rules=Rules.REFERENCE)
CANDIDATES = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25]


@dataclass(frozen=True)
class Grown:
    """A criterion after some of its terms."""

    criterion: float
    complete: bool = True


class Terms:
    """A criterion that is a sum of given terms, one list a candidate."""

    def __init__(self, terms: list[list[float]]) -> None:
        self.terms = terms
        self.order: list[int] = []
        first = {
            block_plan(CONTEXT, x).ratios["0.self_attn.q_proj"]: i for i, x in enumerate(CANDIDATES)
        }
        self._index = first

    def measure(self, allotments: Mapping[str, Allotment], bound: float = math.inf) -> Grown:
        ratio = allotments["0.self_attn.q_proj"].ratio
        assert isinstance(ratio, float)
        index = self._index[ratio]
        self.order.append(index)
        total = 0.0
        for place, term in enumerate(self.terms[index]):
            total += term
            if total > bound:
                return Grown(total, place == len(self.terms[index]) - 1)
        return Grown(total)


def search(terms: list[list[float]], kind: str, context: object = CONTEXT) -> Choice:
    assert isinstance(context, type(CONTEXT))
    return choose(
        context, Terms(terms), CANDIDATES, lambda x: block_plan(context, x), "t", search=kind
    )


term_lists = st.lists(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), min_size=3, max_size=3),
    min_size=len(CANDIDATES),
    max_size=len(CANDIDATES),
)


@given(term_lists)
def test_early_out_finds_what_exact_finds(terms: list[list[float]]) -> None:
    exact, early = search(terms, "exact"), search(terms, "early_out")
    assert early.winner == exact.winner
    assert early.outcome.criterion == exact.outcome.criterion
    for complete, mine, partial in zip(exact.criteria, early.criteria, early.partial, strict=True):
        if mine is None:
            assert partial is not None
            assert complete is not None
            assert exact.outcome.criterion < partial <= complete
        else:
            assert mine == complete


@given(term_lists, st.integers(0, len(CANDIDATES) - 1))
def test_under_the_reference_a_nan_wins_as_the_first_only(
    terms: list[list[float]], place: int
) -> None:
    terms[place][1] = math.nan
    winners = {search(terms, kind, REFERENCE).winner for kind in ("exact", "early_out")}
    assert len(winners) == 1
    assert (winners == {0}) or place != 0


def test_candidates_given_up_are_marked() -> None:
    terms = [[1.0, float(i), 1.0] for i in (5, 4, 3, 0, 2, 6)]
    report = search(terms, "early_out").report("block", CANDIDATES)
    assert report["lambda_block"] == 0.15
    assert report["criterion_block"][3] == 2.0
    assert report["criterion_block"][0] is None
    assert report["partial_block"][0] == 6.0
    assert report["partial_block"][3] is None
    assert "partial_block" not in search(terms, "exact").report("block", CANDIDATES)


def adaptive(terms: list[list[float]], ranks: list[list[float]]) -> tuple[Choice, list[int]]:
    """What an adaptive search makes of them, and which candidates it measured."""
    criterion = Terms(terms)
    found = choose(
        CONTEXT,
        criterion,
        CANDIDATES,
        lambda x: block_plan(CONTEXT, x),
        "t",
        search="adaptive",
        ranking=Terms(ranks),
    )
    return found, criterion.order


def test_adaptive_measures_what_may_win_by_its_rank() -> None:
    smooth = [[100 * (1 + 4 * (x - 0.12) ** 2)] for x in CANDIDATES]
    terms = [[float(i)] for i in (5, 4, 1, 0, 2, 6)]
    found, measured = adaptive(terms, smooth)
    near = [i for i, (rank,) in enumerate(smooth) if rank <= 100.5]
    assert sorted(measured) == near
    assert len(near) < len(CANDIDATES)
    # Every fourth is ranked, then what is two and one places from the best.
    assert found.ranking is not None
    assert [i for i, rank in enumerate(found.ranking) if rank is None] == [5]
    jumping = [[rank + (3 if i % 2 else 0)] for i, (rank,) in enumerate(smooth)]
    assert len(adaptive(terms, jumping)[1]) > len(near)


def test_adaptive_gives_up_what_has_lost() -> None:
    terms = [[4.0, 6.0], [10.5, 6.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]
    found, measured = adaptive(terms, [[100 + 0.04 * i * i] for i in range(6)])
    assert measured[:2] == [0, 1]
    assert found.winner == 0
    assert found.criteria[:2] == [10.0, None]
    assert found.partial[1] == 10.5


def test_a_candidate_with_zeros_already_measured_costs_nothing() -> None:
    terms = [[float(i)] for i in (5, 4, 1, 0, 2, 6)]
    criterion = Terms(terms)
    known = Known(CONTEXT.allot(block_plan(CONTEXT, CANDIDATES[0])), Grown(0.5))
    found = choose(
        CONTEXT, criterion, CANDIDATES, lambda x: block_plan(CONTEXT, x), "t", known=known
    )
    assert criterion.order == [1, 2, 3, 4, 5]
    assert found.criteria[0] == 0.5


def test_a_known_rank_is_not_measured_again() -> None:
    smooth = [[100 * (1 + 4 * (x - 0.12) ** 2)] for x in CANDIDATES]
    terms, ranking = Terms([[float(i)] for i in (5, 4, 1, 0, 2, 6)]), Terms(smooth)
    known = Known(CONTEXT.allot(block_plan(CONTEXT, CANDIDATES[0])), Grown(5.0), smooth[0][0])
    found = choose(
        CONTEXT,
        terms,
        CANDIDATES,
        lambda x: block_plan(CONTEXT, x),
        "t",
        search="adaptive",
        known=known,
        ranking=ranking,
    )
    assert found.ranking == adaptive(terms.terms, smooth)[0].ranking
    assert 0 not in ranking.order
    assert 0 not in terms.order
    assert (found.winner, found.criteria[0]) == (3, 5.0)


def test_the_row_step_starts_from_the_block_steps_outcome() -> None:
    report = NeuroAL(block_candidates=[0.1], row_candidates=[0.0]).allocate(CONTEXT).report
    assert report["criterion_row"] == report["criterion_block"]


@pytest.mark.parametrize("kind", ["early_out", "adaptive"])
def test_the_record_says_how_was_searched(kind: str) -> None:
    context = allocation_context(
        tiny_llama(max_position_embeddings=300), tokens=random_tokens(2, 272)
    )
    report = NeuroAL(search=kind).allocate(context).report
    exact = NeuroAL().allocate(context).report
    assert report["search"] == kind
    assert "search" not in exact
    if kind == "early_out":
        for name in ("lambda_block", "lambda_row"):
            assert report[name] == exact[name]
    else:
        assert any(rank is None for rank in report["ranking_block"])
        assert len(report["ranking_block"]) == 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": "early"}, "must be one of exact, early_out, adaptive"),
        ({"search": "early_out", "criterion": "perplexity"}, "topup.search=exact"),
    ],
)
def test_bad_searches_are_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NeuroAL(**settings)  # type: ignore[arg-type]
