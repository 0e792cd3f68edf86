"""Equal marginals and evolution: exact budgets, lower divergence, reproducible plans."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import neuroal
from neuroal.errors import UserError
from neuroal.gradients.divergence import OutputDivergence
from neuroal.gradients.row_sparsity import HIGHEST, LOWEST, RowSparsity, shuffled
from neuroal.gradients.updated_order import UpdatedOrder
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.budget import Rules, total_zeros
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.evolve import Evolve
from neuroal.topups.marginal import EqualMarginals
from tests.architectures import model_of
from tests.objectives import objective_of
from tests.small_models import allocation_context, check, random_tokens, tiny_llama

SHORT: dict[str, Any] = {"linear_iterations": 4, "row_iterations": 6, "windows": 2}
TOKENS = random_tokens(6, 24)


@pytest.fixture(autouse=True)
def ignore_the_warning_about_few_windows() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="topup=marginal fits")
        yield


@pytest.mark.parametrize("step", ["linear", "row", "both"])
@pytest.mark.parametrize(
    "pruner", [Magnitude(), Wanda(), Multiflow(), SparseGPT()], ids=lambda p: type(p).__name__
)
def test_every_pruner_meets_the_exact_budget_of_the_plan(step: str, pruner: Pruner) -> None:
    model = model_of("llama")
    topup = EqualMarginals(step=step, **SHORT)
    result = neuroal.prune(model, TOKENS, pruner=pruner, topup=topup, sparsity=0.63)
    numel = sum(mask.numel() for mask in result.masks.values())
    assert sum(int(mask.sum()) for mask in result.masks.values()) == total_zeros(0.63, numel)
    assert result.plan.per_row() == (step != "linear")
    assert len({round(ratio, 6) for ratio in result.plan.means().values()}) > 1


@pytest.mark.parametrize("objective", ["kl", "cross_entropy", "block_error"])
def test_every_objective_decreases_on_its_own_windows(objective: str) -> None:
    decoder = tiny_llama()
    settings: dict[str, Any] = {"step": "both", "objective": objective, "windows": 6}
    context = allocation_context(decoder, Magnitude(), tokens=TOKENS, batch=6)
    report = EqualMarginals(**settings).allocate(context).report
    assert report["objective_row"][-1] < report["objective_linear"][0]


def test_the_plan_has_a_lower_divergence_than_uniform() -> None:
    decoder = tiny_llama()
    context = allocation_context(decoder, Magnitude(), tokens=random_tokens(5, 24), batch=5)
    objective = objective_of(decoder, 5)
    windows = list(range(5))
    uniform = RowSparsity.of(decoder, uniform_plan(decoder, 0.6)).counts()
    before = objective.value(uniform, windows)
    for topup in (EqualMarginals(windows=5), Evolve(passes=60, windows=5)):
        budgets = context.budgets(topup.allocate(context).plan)
        counts = {key: budget.counts for key, budget in budgets.items()}
        assert objective.value(counts, windows) < before


@pytest.mark.parametrize("topup", [EqualMarginals(**SHORT), Evolve(passes=20, windows=2)])
def test_equal_seeds_give_equal_plans_and_different_seeds_different_plans(topup: Any) -> None:
    def plan(seed: int) -> Any:
        context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=2, seed=seed)
        return topup.allocate(context).plan.to_dict()

    assert plan(0) == plan(0)
    assert plan(0) != plan(1)


def test_every_move_of_the_rows_meets_the_budget_within_bounds() -> None:
    decoder = tiny_llama()
    rows = RowSparsity.of(decoder, uniform_plan(decoder, 0.7))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows.move(torch.randn(len(rows.sparsity), generator=generator, dtype=torch.float64) / 5)
        assert float(rows.sparsity.min()) >= LOWEST
        assert float(rows.sparsity.max()) <= HIGHEST
        assert float((rows.sparsity * rows.cols).sum()) == pytest.approx(rows.zeros, rel=1e-4)


def test_minibatches_are_shuffled_passes() -> None:
    stream = shuffled(6, 4, seed=0)
    seen = [next(stream) for _ in range(6)]
    assert all(len(batch) == 4 for batch in seen)
    flat = [window for batch in seen for window in batch]
    for begin in range(0, 24, 6):
        assert sorted(flat[begin : begin + 6]) == list(range(6))
    assert next(shuffled(3, 8, seed=0)) == next(shuffled(3, 8, seed=0))
    assert sorted(next(shuffled(3, 8, seed=0))) == [0, 1, 2]


def test_a_saved_plan_can_be_the_initial_plan(tmp_path: Any) -> None:
    from neuroal.files.atomic import write_json

    decoder = tiny_llama()
    context = allocation_context(decoder, Magnitude(), tokens=TOKENS, batch=6)
    first = EqualMarginals(step="linear", **SHORT).allocate(context).plan
    write_json(tmp_path / "plan.json", first.to_dict())
    again = EqualMarginals(step="row", start=str(tmp_path / "plan.json"), **SHORT)
    report = again.allocate(context).report
    assert report["objective_row"][0] != pytest.approx(
        EqualMarginals(step="row", **SHORT).allocate(context).report["objective_row"][0], rel=1e-6
    )


FIRST = {
    "both": (0.61912398, 0.74390166, 0.61789016, 0.61883516),
    "linear": (0.6124761, 0.80180915, 0.6115745, 0.61260307),
    "row": (0.6035844, 0.63203553, 0.60340728, 0.60373778),
}
"""Mean sparsities of four linears, computed by version 0.1."""


@pytest.mark.parametrize("step", FIRST)
def test_the_first_preset_gives_the_plan_of_version_0_1(step: str) -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    plan = EqualMarginals(preset="first", step=step, **SHORT).allocate(context).plan
    means = tuple(plan.means().values())[::9]
    assert means == pytest.approx(FIRST[step], abs=1e-6)


def test_a_preset_sets_what_is_null_and_a_setting_wins() -> None:
    assert EqualMarginals(preset="first").resolved == {
        "start": "uniform",
        "step": "both",
        "linear_iterations": 25,
        "row_iterations": 60,
        "momentum": 0.8,
        "second_order": 0.0,
    }
    assert EqualMarginals(preset="first", step="linear").resolved["linear_iterations"] == 40
    assert EqualMarginals(preset="first", step="row").resolved["row_iterations"] == 80
    rows = [
        EqualMarginals(preset=p).resolved["row_iterations"] for p in ("fast", "default", "best")
    ]
    assert rows == sorted(rows)
    default = EqualMarginals(start="uniform", row_iterations=7, momentum=0.0).resolved
    assert (default["start"], default["row_iterations"], default["momentum"]) == ("uniform", 7, 0)
    assert default["linear_iterations"] == 0


def test_the_report_has_the_resolved_settings() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    topup = EqualMarginals(preset="fast", row_iterations=2, windows=2)
    report = topup.allocate(context).report
    assert report["preset"] == "fast"
    assert {key: report[key] for key in topup.resolved} == dict(topup.resolved)
    assert len(report["loss_fisher"]) == 4
    assert len(report["objective_row"]) == 2


def test_a_start_by_information_is_better_than_uniform() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    values = [
        EqualMarginals(start=start, windows=6, row_iterations=1)
        .allocate(context)
        .report["objective_row"][0]
        for start in ("fisher", "uniform")
    ]
    assert values[0] < values[1]


def test_patterns_take_the_step_by_linear() -> None:
    topup = EqualMarginals(step="linear", linear_iterations=2, windows=2)
    result = neuroal.prune(model_of("llama"), TOKENS, topup=topup, pattern=(4, 8))
    assert result.sparsity == pytest.approx(0.5, abs=0.02)
    assert not result.plan.per_row()


def test_reranking_changes_the_plan() -> None:
    context = allocation_context(tiny_llama(), Wanda(), tokens=TOKENS, batch=6)
    plain = EqualMarginals(step="row", **SHORT).allocate(context).plan
    reranked = EqualMarginals(step="row", rerank=2, **SHORT).allocate(context).plan
    assert plain.to_dict() != reranked.to_dict()


UPDATING = [SparseGPT(block_size=8), ALPS(stages=2, stage_steps=3, cg_steps=10)]


@pytest.mark.parametrize("pruner", UPDATING, ids=lambda p: p.name)
def test_a_pruner_that_updates_weights_prunes_the_model_during_the_search(
    pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    update = UpdatedOrder.update

    def counted(self: UpdatedOrder, *arguments: Any) -> None:
        update(self, *arguments)
        updates.append(1)

    monkeypatch.setattr(UpdatedOrder, "update", counted)
    context = allocation_context(tiny_llama(), pruner, tokens=TOKENS, batch=6)
    plans = []
    for rerank, expected in ((None, 3), (2, 3), (0, 0)):
        topup = EqualMarginals(row_iterations=5, windows=2, rerank=rerank)
        plans.append(topup.allocate(context).plan.to_dict())
        assert len(updates) == topup.search_prunings(pruner) == expected
        updates.clear()
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert topup.search_prunings(Wanda()) == 0
    assert EqualMarginals().search_prunings(pruner) == 4
    assert EqualMarginals(preset="first").search_prunings(pruner) == 0


def test_few_windows_raise_a_warning() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    with pytest.warns(UserWarning, match=r"calibration\.search_windows=32"):
        EqualMarginals(step="linear", **SHORT).allocate(context)


def test_every_trial_of_evolution_meets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    value = OutputDivergence.value

    def recorded(self: OutputDivergence, counts: Any, windows: Any) -> float:
        seen.append(sum(int(counts[linear.key].sum()) for linear in decoder))
        return value(self, counts, windows)

    monkeypatch.setattr(OutputDivergence, "value", recorded)
    decoder = tiny_llama()
    context = allocation_context(decoder, Magnitude(), tokens=TOKENS, batch=6, sparsity=0.63)
    Evolve(passes=30, windows=2).allocate(context)
    assert len(seen) == 30
    assert set(seen) == {total_zeros(0.63, decoder.numel)}


def test_evolution_makes_the_given_number_of_passes() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    for passes in (1, 9, 23):
        report = Evolve(passes=passes, generation=4).allocate(context).report
        assert len(report["divergence"]) + report["trials"] == passes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EqualMarginals(step="rows"), "did you mean 'row'"),
        (lambda: EqualMarginals(preset="fats"), "did you mean 'fast'"),
        (lambda: EqualMarginals(objective="lk"), "kl, cross_entropy, block_error"),
        (lambda: EqualMarginals(windows=0), r"topup\.windows=0"),
        (lambda: EqualMarginals(row_rate=0), r"topup\.row_rate=0"),
        (lambda: EqualMarginals(momentum=1), r"topup\.momentum=1"),
        (lambda: EqualMarginals(rerank=-1), r"topup\.rerank=-1: must not be negative"),
        (
            lambda: EqualMarginals(objective="block_error", second_order=0.1),
            r"topup\.objective=kl or cross_entropy",
        ),
        (
            lambda: check(EqualMarginals(start="no.json"), Wanda(), 0.5, Rules.EXACT),
            r"topup\.start=no\.json: no such file",
        ),
        (lambda: Evolve(unit="blocks"), "did you mean 'block'"),
        (lambda: Evolve(passes=0), r"topup\.passes=0"),
        (lambda: check(EqualMarginals(), Wanda(), 0.5, Rules.EXACT, 4), r"topup\.step=linear"),
        (
            lambda: check(EqualMarginals(), SparseGPT(), 0.5, Rules.REFERENCE),
            "use rules=exact, or topup.step=linear",
        ),
    ],
)
def test_errors_name_invalid_settings_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
