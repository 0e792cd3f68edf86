"""Fisher sums equal those of single gradients."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.fisher import FisherRounds, FisherSettings
from neuroal.gradients.information import Elementwise, Factored
from neuroal.gradients.labels import draw_labels
from neuroal.gradients.threshold import lowest_of_model
from neuroal.models.adapter import DecoderModel, PrunableLinear
from neuroal.parallel.peers import Event, Peers
from neuroal.sparsity.budget import total_zeros
from neuroal.topups.fisher import Fisher
from neuroal.tracking import QuietProgress
from tests.architectures import ARCHITECTURES, build
from tests.small_models import random_tokens, tiny_llama

TOKENS = random_tokens(5, 12)
CHOSEN = [3, 0, 4]


def rounds_of(decoder: DecoderModel, batch: int = 2, **options: Any) -> FisherRounds:
    runner = BlockRunner.capture(decoder, TOKENS, batch)
    generator = torch.Generator().manual_seed(1)
    labels = {w: torch.randint(0, 64, (12,), generator=generator) for w in range(len(TOKENS))}
    return FisherRounds(FisherSettings(**{"skip": 3, **options}), runner, TOKENS, batch, labels)


def brute_force(
    decoder: DecoderModel, labels: dict[int, Tensor], skip: int
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return, by linear, the means over tokens of δ²·x², of δ² and of x², token by token."""
    model = DecoderModel(copy.deepcopy(decoder.model).double())
    calls: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def record(linear: PrunableLinear) -> Any:
        def hook(_module: Any, args: Any, output: Tensor) -> None:
            output.retain_grad()
            positions = args[1] if len(args) > 1 else torch.arange(12)  # an expert sees some tokens
            calls.setdefault(linear.key, []).append((args[0].detach(), output, positions))

        return hook

    for linear in model:
        linear.module.register_forward_hook(record(linear))
    with ExitStack() as stack:
        for index in range(len(model)):
            stack.enter_context(model.separate_experts(index))
        for window in CHOSEN:
            logits = model.model(TOKENS[window : window + 1]).logits[0]
            torch.nn.functional.cross_entropy(logits, labels[window], reduction="sum").backward()  # type: ignore[no-untyped-call]
    result = {}
    terms = len(CHOSEN) * (12 - skip)
    for linear in model:
        tokens = [
            (part.reshape(-1, linear.cols)[n], y.grad.reshape(-1, linear.rows)[n])
            for part, y, positions in calls.get(linear.key, ())
            if y.grad is not None
            for n, position in enumerate(positions)
            if position >= skip
        ]
        assert len(tokens) == terms or ".experts." in linear.key
        x = torch.zeros(terms, linear.cols, dtype=torch.float64)
        gradient = torch.zeros(terms, linear.rows, dtype=torch.float64)
        for n, (token, its_gradient) in enumerate(tokens):
            x[n], gradient[n] = token, its_gradient
        result[linear.key] = (
            torch.einsum("tr,tc->rc", gradient.square(), x.square()) / terms,
            gradient.square().mean(0),
            x.square().mean(0),
        )
    return result


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_information_equals_that_of_the_gradients_of_single_tokens(
    model_type: str, skip: int
) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    for form in ("elementwise", "factored"):
        rounds = rounds_of(decoder, form=form, skip=skip)
        rounds.measure(CHOSEN)
        expected = brute_force(decoder, dict(rounds.labels), skip)
        for linear in decoder:
            products, outputs, inputs = expected[linear.key]
            information = rounds.information[linear.key]
            if isinstance(information, Elementwise):
                # bfloat16 has eight bits of precision.
                torch.testing.assert_close(
                    information.values().double(), products, rtol=5e-3, atol=1e-12
                )
            else:
                assert isinstance(information, Factored)
                torch.testing.assert_close(
                    information.outputs.double(), outputs, rtol=1e-3, atol=1e-12
                )
                torch.testing.assert_close(
                    information.inputs.double(), inputs, rtol=1e-3, atol=1e-9
                )


@pytest.mark.parametrize("form", ["elementwise", "factored"])
def test_information_does_not_depend_on_the_batch(form: str) -> None:
    decoder = tiny_llama()
    first, second = rounds_of(decoder, 1, form=form), rounds_of(decoder, 3, form=form)
    losses = [rounds.measure(CHOSEN) for rounds in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for key, information in first.information.items():
        torch.testing.assert_close(
            information.values(), second.information[key].values(), rtol=1e-2, atol=1e-12
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["elementwise", "factored"])
def test_half_precision_gives_nearly_the_same_information(form: str, dtype: torch.dtype) -> None:
    exact, decoder = rounds_of(tiny_llama(), form=form), tiny_llama()
    half = rounds_of(DecoderModel(decoder.model.to(dtype)), form=form)
    exact.measure(CHOSEN)
    half.measure(CHOSEN)
    for key, information in exact.information.items():
        pair = torch.stack(
            [information.values().flatten(), half.information[key].values().flatten()]
        )
        assert float(pair.corrcoef()[0, 1]) > 0.98, key
        ratio = float(pair[1].mean() / pair[0].mean())
        assert ratio == pytest.approx(1, rel=0.1), key


def test_later_rounds_average_with_the_past_and_prune_from_dense_weights() -> None:
    decoder = tiny_llama()
    rounds = rounds_of(decoder, form="factored")
    rounds.measure(CHOSEN)
    first = {key: information.values() for key, information in rounds.information.items()}
    rounds.measure(CHOSEN)  # nothing is pruned yet, so that the mean stays
    for key, information in rounds.information.items():
        torch.testing.assert_close(information.values(), first[key])
    before = [linear.weight.clone() for linear in decoder]
    rounds.threshold = lowest_of_model(decoder, rounds.terms, decoder.numel * 4 // 5)
    loss = rounds.measure(CHOSEN)
    assert loss != pytest.approx(rounds_of(decoder).measure(CHOSEN), rel=1e-5)
    assert all(torch.equal(a.weight, b) for a, b in zip(decoder, before, strict=True))
    assert any(
        not torch.allclose(information.values(), first[key], rtol=1e-3)
        for key, information in rounds.information.items()
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_the_loss_is_the_mean_over_windows_and_tokens(batch: int) -> None:
    decoder = tiny_llama()
    rounds = rounds_of(decoder, batch)
    with torch.no_grad():
        logits = decoder.model(TOKENS[CHOSEN]).logits.flatten(0, 1)
    labels = torch.cat([rounds.labels[window] for window in CHOSEN])
    expected = float(torch.nn.functional.cross_entropy(logits, labels))
    assert rounds.measure(CHOSEN) == pytest.approx(expected, rel=1e-5)


def test_settings_have_the_defaults_of_the_method() -> None:
    assert (FisherSettings().rounds, FisherSettings().skip) == (Fisher.rounds, Fisher.skip)


def test_gradients_that_overflow_name_the_types_that_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backward = torch.autograd.grad

    def overflowing(*args: object, **options: object) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = backward(*args, **options)  # type: ignore[arg-type]
        return tuple(part * torch.inf for part in gradients)

    monkeypatch.setattr("torch.autograd.grad", overflowing)
    with pytest.raises(UserError, match=r"model\.dtype=bfloat16") as raised:
        rounds_of(tiny_llama()).measure(CHOSEN)
    assert "\n" not in str(raised.value)


def test_zeros_grow_in_ever_finer_steps_up_to_the_total() -> None:
    counts = FisherSettings(rounds=4).zeros(1000)
    assert counts == [578, 875, 984, 1000]
    assert FisherSettings(rounds=1).zeros(1000) == [1000]


def dense_hidden(decoder: DecoderModel, batch: int) -> tuple[BlockRunner, list[Tensor]]:
    runner = BlockRunner.capture(decoder, TOKENS, batch)
    hidden = runner.embedded
    for index, _ in decoder.walk():
        hidden = runner.run(index, hidden)
    return runner, hidden


def test_labels_depend_on_seed_and_window_only(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny_llama()
    order = [7, 2, 9, 4, 0]  # indices of the windows in a longer list
    first = draw_labels(*dense_hidden(decoder, 5), order, seed=3)
    monkeypatch.setattr("neuroal.gradients.head.LOGIT_BYTES", {"cpu": 64 * 4 * 5})
    again = draw_labels(*dense_hidden(decoder, 2), order, seed=3)
    assert all(torch.equal(first[window], again[window]) for window in order)
    other = draw_labels(*dense_hidden(decoder, 5), order, seed=4)
    assert any(not torch.equal(first[window], other[window]) for window in order)


def test_labels_follow_the_prediction() -> None:
    """The shares of drawn labels are those of the model, within four standard deviations."""
    decoder = tiny_llama(vocab_size=5, bos_token_id=0, eos_token_id=1)
    tokens = torch.zeros(1, 1, dtype=torch.long).expand(4000, 1).contiguous()
    runner = BlockRunner.capture(decoder, tokens, 4000)
    hidden = runner.embedded
    for index, _ in decoder.walk():
        hidden = runner.run(index, hidden)
    labels = torch.cat(list(draw_labels(runner, hidden, range(4000), 0).values()))
    with torch.no_grad():
        expected = decoder.model(tokens[:1]).logits[0, 0].softmax(-1).double()
    shares = labels.bincount(minlength=5).double() / 4000
    assert bool(((shares - expected).abs() < 4 * (expected * (1 - expected) / 4000).sqrt()).all())


def test_quiet_progress_suffices_for_whole_rounds() -> None:
    decoder = tiny_llama()
    rounds = rounds_of(decoder, form="elementwise")
    zeros = total_zeros(0.7, decoder.numel)
    with QuietProgress().stage("rounds", 4, "round") as step:
        rounds.run([[0, 1], [2, 3], [4, 0], [1, 2]], zeros, step)
    plan = rounds.plan(0.7, by_row=True)
    total = sum(float(torch.as_tensor(plan.ratios[x.key]).sum()) * x.cols for x in decoder)
    assert total == pytest.approx(zeros, rel=0.02)  # rows are capped at 0.99
    assert len(rounds.losses) == 4


def test_the_factors_of_all_blocks_are_exchanged_at_once() -> None:
    class Counting(Peers):
        meetings = 0

        def meet(self, event: Event = Event.READY) -> None:
            self.meetings += 1

    meetings = {}
    for form in ("factored", "elementwise"):
        for blocks in (1, 4):
            decoder = tiny_llama(num_hidden_layers=blocks)
            peers = decoder.peers = Counting()
            rounds_of(decoder, form=form).measure(CHOSEN)
            meetings[form, blocks] = peers.meetings
    assert meetings["factored", 4] == meetings["factored", 1]
    assert meetings["elementwise", 4] == meetings["elementwise", 1] + 3


def test_a_block_without_pruned_linears_has_no_information() -> None:
    model = tiny_llama(num_hidden_layers=2).model
    for form in ("factored", "elementwise"):
        for block in ("0", "1"):
            decoder = DecoderModel(model, (f"{block}.*",))
            rounds = rounds_of(decoder, form=form)
            rounds.measure(CHOSEN)
            assert set(rounds.information) == {linear.key for linear in decoder}
