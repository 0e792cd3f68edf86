"""Compiled blocks compute the same as uncompiled ones, with one graph for all blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from neuroal.execution.compile import CompiledBlocks
from neuroal.execution.compiled_gradients import CompiledGradients, Reduction, weight_gradient
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import BlockPass, walk_back
from neuroal.gradients.information import reduction
from neuroal.kernels.input_statistics import Need
from neuroal.models.adapter import DecoderModel
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from tests.architectures import ARCHITECTURES, build
from tests.small_models import allocation_context, tiny_llama

TOKENS = torch.randint(3, 64, (4, 24), generator=torch.Generator().manual_seed(1))
NORM = frozenset({Need.NORM})


def on_cpu(backend: str | Callable[..., Any]) -> CompiledBlocks:
    """Compile all blocks on the CPU, however small, since tracing is what can fail."""
    return CompiledBlocks(backend, least_work=0, devices=("cpu",))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi", "opt", "gemma2", "falcon"])
def test_statistics_and_outputs_equal_those_of_uncompiled_blocks(model_type: str) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    runner = BlockRunner.capture(decoder, TOKENS, batch=2)
    plain = [runner.measure(0, runner.embedded, NORM, outputs=flag) for flag in (True, False)]
    decoder.memo["compiled"] = on_cpu("eager")
    for (expected_outputs, expected_statistics), flag in zip(plain, (True, False), strict=True):
        outputs, statistics = runner.measure(0, runner.embedded, NORM, outputs=flag)
        assert len(outputs) == len(expected_outputs)
        for output, expected in zip(outputs, expected_outputs, strict=True):
            torch.testing.assert_close(output, expected)
        assert statistics.keys() == expected_statistics.keys()
        for key, expected in expected_statistics.items():
            torch.testing.assert_close(statistics[key].norm, expected.norm)
    assert decoder.memo["compiled"].runs == 4
    torch.testing.assert_close(runner.run(0, runner.embedded), plain[0][0])


def test_all_blocks_and_weights_share_two_graphs() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    decoder = tiny_llama()
    decoder.memo["compiled"] = on_cpu(counter)
    NeuroAL(block_candidates=[0.05, 0.1], row_candidates=[0.1]).allocate(
        allocation_context(decoder)
    )
    assert counter.frame_count == 2  # with and without outputs


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi", "opt"])
def test_windows_of_any_length_share_a_graph(model_type: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    compiled = on_cpu(counter)
    for length in (24, 20, 18):
        runner = BlockRunner.capture(decoder, TOKENS[:, :length], batch=2)
        plain = runner.run(0, runner.embedded)
        decoder.memo["compiled"] = compiled
        for output, expected in zip(runner.run(0, runner.embedded), plain, strict=True):
            torch.testing.assert_close(output, expected)
        decoder.memo["compiled"] = CompiledBlocks()  # compiles no block on a CPU
    assert compiled.runs == 6
    assert counter.frame_count == 1


def test_the_search_result_does_not_depend_on_compilation() -> None:
    decoder = tiny_llama()
    topup = NeuroAL(block_candidates=[0.05, 0.2], row_candidates=[0.0, 0.1])
    plain = topup.allocate(allocation_context(decoder)).report
    decoder.memo["compiled"] = on_cpu("aot_eager")
    compiled = topup.allocate(allocation_context(decoder)).report
    assert decoder.memo["compiled"].runs > 0
    assert compiled["lambda_block"] == plain["lambda_block"]
    for step in ("block", "row"):
        assert compiled[f"criterion_{step}"] == pytest.approx(plain[f"criterion_{step}"], rel=1e-4)


def test_blocks_run_uncompiled_after_a_compile_error() -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise ValueError("no compiler here")

    torch._dynamo.reset()
    decoder = tiny_llama()
    runner = BlockRunner.capture(decoder, TOKENS, batch=4)
    expected = runner.run(0, runner.embedded)
    decoder.memo["compiled"] = on_cpu(fail)
    with pytest.warns(UserWarning, match="blocks run uncompiled"):
        outputs = runner.run(0, runner.embedded)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(runner.run(0, runner.embedded), expected)  # without a warning
    assert decoder.memo["compiled"].runs == 0
    assert not hasattr(decoder.linears[0][0].module.__dict__, "forward")


def test_a_compiler_that_lacks_memory_leaves_the_blocks_to_be_compiled_later() -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    torch._dynamo.reset()
    decoder = tiny_llama()
    runner = BlockRunner.capture(decoder, TOKENS, batch=4)
    decoder.memo["compiled"] = on_cpu(fail)
    decoder.memo["compiled gradients"] = CompiledGradients(on_cpu(fail))
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.run(0, runner.embedded)
    upstream = [torch.ones_like(part) for part in runner.embedded]
    with pytest.raises(RuntimeError, match="out of memory"):
        walk_back(runner, 0, BlockPass(runner.embedded), upstream, Reduction(weight_gradient))


def test_small_blocks_and_gradients_are_not_compiled() -> None:
    decoder = tiny_llama()
    decoder.memo["compiled"] = CompiledBlocks("eager", least_work=1e12, devices=("cpu",))
    runner = BlockRunner.capture(decoder, TOKENS, batch=4)
    runner.run(0, runner.embedded)
    decoder.memo["compiled"] = on_cpu("eager")
    with torch.enable_grad():
        runner.call(0, 0, runner.embedded[0])
    assert decoder.memo["compiled"].runs == 0


@pytest.mark.parametrize("form", ["gradient", "factored", "elementwise"])
@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "phi", "opt", "gemma2", "falcon", "gpt2"]
)
def test_compiled_backward_passes_equal_uncompiled_ones(model_type: str, form: str) -> None:
    decoder = DecoderModel(build(model_type, **ARCHITECTURES[model_type][0]))
    runner = BlockRunner.capture(decoder, TOKENS, batch=3)  # the second batch has one window
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(part.shape, generator=generator) for part in runner.embedded]
    reduced = Reduction(weight_gradient) if form == "gradient" else reduction(form, skip=2)
    forward = BlockPass(runner.embedded)
    expected, at_inputs = walk_back(runner, 0, forward, upstream, reduced)
    assert expected.keys() == {linear.key for linear in decoder.linears[0]}
    decoder.memo["compiled gradients"] = compiled = CompiledGradients(on_cpu("aot_eager"))
    sums, gradients = walk_back(runner, 0, forward, upstream, reduced)
    torch.testing.assert_close(gradients, at_inputs)
    for key, parts in expected.items():
        torch.testing.assert_close(sums[key], parts)
    assert compiled.runs == 1


def test_all_blocks_share_one_graph_of_backward_passes() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    decoder = tiny_llama()
    compiled = CompiledGradients(on_cpu(counter))
    decoder.memo["compiled gradients"] = compiled
    topup = EqualMarginals(start="uniform", row_iterations=3, windows=2)
    with pytest.warns(UserWarning, match="windows of text"):
        topup.allocate(allocation_context(decoder))
    assert compiled.runs == 3 * len(decoder)
    assert counter.frame_count == 1


def test_a_backward_pass_that_does_not_compile_runs_uncompiled_with_one_warning() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    decoder = tiny_llama()
    runner = BlockRunner.capture(decoder, TOKENS, batch=2)
    upstream = [torch.ones_like(part) for part in runner.embedded]
    arguments = (runner, 0, BlockPass(runner.embedded), upstream, Reduction(weight_gradient))
    expected = walk_back(*arguments)
    decoder.memo["compiled gradients"] = CompiledGradients(on_cpu(broken))
    with pytest.warns(UserWarning, match="backward passes run uncompiled") as caught:
        sums, gradients = walk_back(*arguments)
    assert len(caught) == 1
    torch.testing.assert_close(gradients, expected[1])
    torch.testing.assert_close(sums, expected[0])
