"""Compiled blocks compute what plain ones do, with one graph for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from neuroal.blocks import BlockRunner
from neuroal.compiled import CompiledBlocks
from neuroal.models.adapter import DecoderModel
from neuroal.statistics import Need
from neuroal.topups.neuroal import NeuroAL
from tests.test_blocks import ARCHITECTURES, build
from tests.tiny import allocation_context, tiny_llama

TOKENS = torch.randint(3, 64, (4, 24), generator=torch.Generator().manual_seed(1))
NORM = frozenset({Need.NORM})


def on_cpu(backend: str | Callable[..., Any]) -> CompiledBlocks:
    """Without a GPU, and whatever there is to do: tracing is what can go wrong."""
    return CompiledBlocks(backend, least_work=0, devices=("cpu",))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi", "opt", "gemma2", "falcon"])
def test_statistics_and_outputs_are_those_of_plain_blocks(model_type: str) -> None:
    subject = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    runner = BlockRunner.capture(subject, TOKENS, batch=2)
    plain = [runner.measure(0, runner.embedded, NORM, outputs=wanted) for wanted in (True, False)]
    subject.compiled = on_cpu("eager")
    for (outputs, statistics), wanted in zip(plain, (True, False), strict=True):
        found, measured = runner.measure(0, runner.embedded, NORM, outputs=wanted)
        assert len(found) == len(outputs)
        for mine, theirs in zip(found, outputs, strict=True):
            torch.testing.assert_close(mine, theirs)
        assert measured.keys() == statistics.keys()
        for key, theirs in statistics.items():
            torch.testing.assert_close(measured[key].norm, theirs.norm)
    assert subject.compiled.runs == 4
    torch.testing.assert_close(runner.run(0, runner.embedded), plain[0][0])


def test_all_blocks_and_weights_share_two_graphs() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    subject = tiny_llama()
    subject.compiled = on_cpu(counter)
    NeuroAL(block_candidates=[0.05, 0.1], row_candidates=[0.1]).allocate(
        allocation_context(subject)
    )
    assert counter.frame_count == 2  # with outputs, and without


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi", "opt"])
def test_windows_of_any_length_share_a_graph(model_type: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    subject = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    compiled = on_cpu(counter)
    for length in (24, 20, 18):
        runner = BlockRunner.capture(subject, TOKENS[:, :length], batch=2)
        plain = runner.run(0, runner.embedded)
        subject.compiled = compiled
        for mine, theirs in zip(runner.run(0, runner.embedded), plain, strict=True):
            torch.testing.assert_close(mine, theirs)
        subject.compiled = CompiledBlocks()  # which takes no block on a CPU
    assert compiled.runs == 6
    assert counter.frame_count == 1


def test_the_search_finds_the_same() -> None:
    subject = tiny_llama()
    topup = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1])
    plain = topup.allocate(allocation_context(subject)).report
    subject.compiled = on_cpu("aot_eager")
    compiled = topup.allocate(allocation_context(subject)).report
    assert subject.compiled.runs > 0
    assert compiled["lambda_block"] == plain["lambda_block"]
    for step in ("block", "row"):
        assert compiled[f"criterion_{step}"] == pytest.approx(plain[f"criterion_{step}"], rel=1e-4)


def test_a_compiler_that_fails_is_left_alone() -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise ValueError("no compiler here")

    torch._dynamo.reset()
    subject = tiny_llama()
    runner = BlockRunner.capture(subject, TOKENS, batch=4)
    expected = runner.run(0, runner.embedded)
    subject.compiled = on_cpu(fail)
    with pytest.warns(UserWarning, match="blocks run uncompiled"):
        found = runner.run(0, runner.embedded)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(runner.run(0, runner.embedded), expected)  # without a warning
    assert subject.compiled.runs == 0
    assert not hasattr(subject.linears[0][0].module.__dict__, "forward")


def test_small_blocks_and_gradients_are_not_compiled() -> None:
    subject = tiny_llama()
    subject.compiled = CompiledBlocks("eager", least_work=1e12, devices=("cpu",))
    runner = BlockRunner.capture(subject, TOKENS, batch=4)
    runner.run(0, runner.embedded)
    subject.compiled = on_cpu("eager")
    with torch.enable_grad():
        runner.call(0, 0, runner.embedded[0])
    assert subject.compiled.runs == 0
