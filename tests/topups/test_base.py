"""Methods that do not search cost no passes, and which methods share the windows of a search."""

from __future__ import annotations

import pytest

from neuroal.errors import UserError
from neuroal.pruners.wanda import Wanda
from neuroal.topups.alpha import AlphaPruning
from neuroal.topups.atp import ATP
from neuroal.topups.base import TopUp
from neuroal.topups.dlp import DLP
from neuroal.topups.evolve import Evolve
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.owl import OWL
from neuroal.topups.plan_file import PlanFile
from neuroal.topups.uniform import Uniform
from tests.small_models import allocation_context, tiny_llama


@pytest.mark.parametrize(("topup", "passes"), [(Uniform(), 0), (AlphaPruning(), 0), (OWL(), 1)])
def test_only_a_search_takes_passes_and_one_pass_prunes_nothing(
    topup: TopUp, passes: float
) -> None:
    assert topup.search_passes(8) == passes
    assert topup.search_prunings(Wanda()) == 0
    assert topup.row_ratios(Wanda()) is None


@pytest.mark.parametrize("topup", [OWL(), DLP(), Fisher(), EqualMarginals(), Evolve()])
def test_methods_of_sums_over_windows_share_the_windows(topup: TopUp) -> None:
    assert topup.searches
    assert topup.shares_windows
    assert topup.search_passes(8) > 0


@pytest.mark.parametrize("topup", [Uniform(), AlphaPruning(), PlanFile(), ATP(), NeuroAL()])
def test_other_methods_run_on_the_first_device(topup: TopUp) -> None:
    assert topup.searches == isinstance(topup, ATP | NeuroAL)
    assert not topup.shares_windows
    assert (topup.search_passes(8) > 0) == topup.searches


def test_a_round_of_fisher_takes_five_passes_over_its_windows() -> None:
    assert Fisher(rounds=4, windows=8).search_passes(64) == 5 * 4 * 8 / 64


def test_the_values_of_a_plan_are_sparsities_or_densities() -> None:
    with pytest.raises(UserError, match=r"topup\.values"):
        PlanFile(values="shares")


METHODS = [
    *(NeuroAL(), NeuroAL(step="block"), NeuroAL(step="row", row_candidates=[0.1])),
    *(NeuroAL(search="adaptive"), Fisher(windows=4), EqualMarginals(windows=2)),
    *(EqualMarginals(preset="first", windows=2), Evolve(windows=2), OWL(), DLP(), AlphaPruning()),
]


@pytest.mark.parametrize("topup", METHODS, ids=repr)
@pytest.mark.filterwarnings("ignore:.*windows of text")
def test_a_brief_search_does_what_the_whole_one_does_in_fewer_passes(topup: TopUp) -> None:
    brief = topup.brief()
    assert type(brief) is type(topup)
    assert brief.search_passes(4) <= topup.search_passes(4)
    if isinstance(topup, NeuroAL | Fisher | EqualMarginals | Evolve) and topup.search_passes(4) > 8:
        assert brief.search_passes(4) < 0.5 * topup.search_passes(4)
    allocation = brief.allocate(allocation_context(tiny_llama()))
    assert len(allocation.plan.ratios) == 28


def test_the_start_of_equal_marginals_counts_as_passes() -> None:
    by_fisher = EqualMarginals(row_iterations=4).search_passes(8)
    uniform = EqualMarginals(row_iterations=4, start="uniform").search_passes(8)
    assert uniform == 3 * 4
    assert by_fisher == uniform + Fisher().search_passes(8)
