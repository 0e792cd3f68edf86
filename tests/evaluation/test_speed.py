"""Speed and memory of a model, and the weights that 2:4 kernels can use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from neuroal.cli import evaluate
from neuroal.cli.compose import composed
from neuroal.cli.evaluate import evaluate_model
from neuroal.errors import UserError
from neuroal.evaluation.speed import measure_speed, speeds
from neuroal.models.semi_structured import has_two_of_four, why_no_kernels
from neuroal.run import run
from tests.small_models import tiny_llama, two_of_four


def test_prefill_and_decode_count_the_tokens_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama().model
    lengths: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, inputs: lengths.append(tuple(inputs[0].shape)))
    clock = iter(range(1000))
    monkeypatch.setattr("neuroal.evaluation.speed.time.perf_counter", lambda: float(next(clock)))
    speed = measure_speed(model, context=64, batch=2, kernels="dense")
    assert lengths == ([(2, 48)] + [(2, 1)] * 16) * 4
    assert (speed.prefill, speed.decode) == (2 * 48, 2 * 16)  # each measured in one second
    assert speed.weight_bytes == sum(p.nbytes for p in model.parameters())
    assert speed.peak_bytes > speed.weight_bytes


def test_two_of_four_weights_are_recognised() -> None:
    decoder = tiny_llama()
    assert not has_two_of_four(decoder)
    assert has_two_of_four(two_of_four(decoder))
    with torch.no_grad():
        weight = decoder.linears[2][0].weight.clone()
        weight[3, :3] = 1
        decoder.linears[2][0].weight = weight
    assert not has_two_of_four(decoder)


def test_a_cpu_has_no_two_of_four_kernels() -> None:
    decoder = two_of_four(tiny_llama())
    assert "NVIDIA GPU" in str(why_no_kernels(decoder))
    assert [speed.kernels for speed in speeds(decoder.model, 64)] == ["dense"]


def test_neuroal_eval_prints_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["model=zoo/opt", "task=none", "task.speed=true", f"out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["neuroal-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "prefill" in out
    assert "decode" in out


@pytest.mark.parametrize("override", ["offload=blocks", "devices=2"])
def test_speed_is_that_of_a_whole_model_on_one_device(override: str, tmp_path: Path) -> None:
    config = composed(["task.speed=true", override, f"out={tmp_path}"])
    with pytest.raises(UserError, match=r"task\.speed=true: needs offload=none and devices=1"):
        evaluate_model(config)


def test_a_run_refuses_to_measure_speed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use it with neuroal-eval"):
        run(composed(["task.speed=true", f"out={tmp_path}"]))
