"""Equal marginals and evolution: exact budgets, lower divergence, the same plan every time."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import neuroal
from neuroal.errors import UserError
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules, total_zeros
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.topups.divergence import OutputDivergence
from neuroal.topups.evolve import Evolve
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.rows import HIGHEST, LOWEST, Rows, shuffled
from neuroal.topups.uniform import uniform_plan
from tests.test_combinations import model_of
from tests.tiny import allocation_context, random_tokens, tiny_llama
from tests.topups.test_divergence import objective_of

SHORT: dict[str, Any] = {"linear_iterations": 4, "row_iterations": 6, "windows": 2}
TOKENS = random_tokens(6, 24)


@pytest.fixture(autouse=True)
def few_windows_are_meant() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="topup=marginal fits")
        yield


@pytest.mark.parametrize("step", ["linear", "row", "both"])
@pytest.mark.parametrize(
    "pruner", [Magnitude(), Wanda(), Multiflow(), SparseGPT()], ids=lambda p: type(p).__name__
)
def test_every_pruner_takes_the_plan_at_the_exact_budget(step: str, pruner: Pruner) -> None:
    model = model_of("llama")
    topup = EqualMarginals(step=step, **SHORT)
    found = neuroal.prune(model, TOKENS, pruner=pruner, topup=topup, sparsity=0.63)
    numel = sum(mask.numel() for mask in found.masks.values())
    assert sum(int(mask.sum()) for mask in found.masks.values()) == total_zeros(0.63, numel)
    assert found.plan.per_row() == (step != "linear")
    assert len({round(ratio, 6) for ratio in found.plan.means().values()}) > 1


@pytest.mark.parametrize("objective", ["kl", "cross_entropy", "block_error"])
def test_every_objective_falls_on_its_own_windows(objective: str) -> None:
    subject = tiny_llama()
    settings: dict[str, Any] = {"step": "both", "objective": objective, "windows": 6}
    context = allocation_context(subject, Magnitude(), tokens=TOKENS, batch=6)
    report = EqualMarginals(**settings).allocate(context).report
    assert report["objective_row"][-1] < report["objective_linear"][0]


def test_the_divergence_of_the_plan_is_below_that_of_uniform() -> None:
    subject = tiny_llama()
    context = allocation_context(subject, Magnitude(), tokens=random_tokens(5, 24), batch=5)
    objective = objective_of(subject, 5)
    windows = list(range(5))
    uniform = Rows.of(subject, uniform_plan(subject, 0.6)).counts()
    before = objective.value(uniform, windows)
    for topup in (EqualMarginals(windows=5), Evolve(passes=60, windows=5)):
        allotments = context.allot(topup.allocate(context).plan)
        counts = {key: allotment.counts for key, allotment in allotments.items()}
        assert objective.value(counts, windows) < before


@pytest.mark.parametrize("topup", [EqualMarginals(**SHORT), Evolve(passes=20, windows=2)])
def test_the_same_seed_gives_the_same_plan_and_another_one_another(topup: Any) -> None:
    def plan(seed: int) -> Any:
        context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=2, seed=seed)
        return topup.allocate(context).plan.to_dict()

    assert plan(0) == plan(0)
    assert plan(0) != plan(1)


def test_rows_move_back_to_the_budget_within_bounds() -> None:
    subject = tiny_llama()
    rows = Rows.of(subject, uniform_plan(subject, 0.7))
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


def test_a_saved_plan_can_be_the_start(tmp_path: Any) -> None:
    from neuroal.records.files import write_json

    subject = tiny_llama()
    context = allocation_context(subject, Magnitude(), tokens=TOKENS, batch=6)
    first = EqualMarginals(step="linear", **SHORT).allocate(context).plan
    write_json(tmp_path / "plan.json", first.to_dict())
    again = EqualMarginals(step="row", start=str(tmp_path / "plan.json"), **SHORT)
    report = again.allocate(context).report
    assert report["objective_row"][0] != pytest.approx(
        EqualMarginals(step="row", **SHORT).allocate(context).report["objective_row"][0], rel=1e-6
    )


def test_reranking_changes_the_plan() -> None:
    context = allocation_context(tiny_llama(), Wanda(), tokens=TOKENS, batch=6)
    plain = EqualMarginals(step="row", **SHORT).allocate(context).plan
    reranked = EqualMarginals(step="row", rerank=2, **SHORT).allocate(context).plan
    assert plain.to_dict() != reranked.to_dict()


def test_few_windows_are_warned_of() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    with pytest.warns(UserWarning, match=r"calibration\.search_windows=32"):
        EqualMarginals(step="linear", **SHORT).allocate(context)


def test_every_trial_of_evolution_has_the_budgets_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    value = OutputDivergence.value

    def noted(self: OutputDivergence, counts: Any, windows: Any) -> float:
        seen.append(sum(int(counts[linear.key].sum()) for linear in subject))
        return value(self, counts, windows)

    monkeypatch.setattr(OutputDivergence, "value", noted)
    subject = tiny_llama()
    context = allocation_context(subject, Magnitude(), tokens=TOKENS, batch=6, sparsity=0.63)
    Evolve(passes=30, windows=2).allocate(context)
    assert len(seen) == 30
    assert set(seen) == {total_zeros(0.63, subject.numel)}


def test_evolution_makes_no_more_passes_than_it_may() -> None:
    context = allocation_context(tiny_llama(), Magnitude(), tokens=TOKENS, batch=6)
    for passes in (1, 9, 23):
        report = Evolve(passes=passes, generation=4).allocate(context).report
        assert len(report["divergence"]) + report["trials"] == passes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EqualMarginals(step="rows"), "did you mean 'row'"),
        (lambda: EqualMarginals(objective="lk"), "kl, cross_entropy, block_error"),
        (lambda: EqualMarginals(windows=0), r"topup\.windows=0"),
        (lambda: EqualMarginals(row_rate=0), r"topup\.row_rate=0"),
        (lambda: EqualMarginals(momentum=1), r"topup\.momentum=1"),
        (
            lambda: EqualMarginals(objective="block_error", second_order=0.1),
            r"topup\.objective=kl or cross_entropy",
        ),
        (
            lambda: EqualMarginals(start="no.json").check(Wanda(), 0.5, Rules.EXACT),
            r"topup\.start=no\.json: no such file",
        ),
        (lambda: Evolve(unit="blocks"), "did you mean 'block'"),
        (lambda: Evolve(passes=0), r"topup\.passes=0"),
        (lambda: EqualMarginals().check(Wanda(), 0.5, Rules.EXACT, 4), r"topup\.step=linear"),
        (
            lambda: EqualMarginals().check(SparseGPT(), 0.5, Rules.REFERENCE),
            "use rules=exact or topup.step=linear",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
