"""Models that compute no probabilities, or hardly more than chance, are reported."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from neuroal.cli.compose import composed
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import Perplexity, perplexity
from neuroal.evaluation.sanity import warn_if_chance, warn_if_infinite
from neuroal.models.location import ZOO
from neuroal.records.store import load_record
from neuroal.run import run
from tests.architectures import build
from tests.small_models import random_tokens, tiny_llama

SMALL = [
    *("calibration.windows=2", "calibration.seqlen=16", "task.seqlen=16", "task.limit=2"),
    *("topup=uniform", "pruner=magnitude"),
]


def folder_of(path: Path, scale: float) -> str:
    """Save a model in float16 whose activations are multiplied by `scale`, with a tokenizer."""
    model = build("llama", vocab_size=4096, dtype="float16").half()
    model.model.norm.weight.data.fill_(scale)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(ZOO / "llama").save_pretrained(path)
    return str(path)


def start(tmp_path: Path, model: str) -> tuple[Any, Path]:
    model_settings = ["model=hf", f"model.path={model}", "model.dtype=float16"]
    return run(composed([*SMALL, *model_settings, f"out={tmp_path}/runs"]))


def test_a_model_that_overflows_is_refused_before_it_is_pruned(tmp_path: Path) -> None:
    model = folder_of(tmp_path / "model", 6e4)
    with pytest.raises(UserError, match=r"perplexity on builtin is not finite; try model\.dtype="):
        start(tmp_path, model)
    assert not list((tmp_path / "runs").rglob("*.json"))


def test_an_overflow_after_pruning_is_recorded_as_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder_of(tmp_path / "model", 1.0)
    figures = iter([Perplexity(20.0, 1.0, 2), Perplexity(math.inf, None, 2)])
    monkeypatch.setattr("neuroal.evaluation.tasks.perplexity", lambda *_: next(figures))
    with pytest.warns(UserWarning, match="task=builtin: the perplexity is not finite"):
        record, path = start(tmp_path, model)
    entry = json.loads(path.read_text(), parse_constant=pytest.fail)["metrics"]["builtin"]
    assert entry["pruned"]["value"] is None
    assert record.metrics["builtin"]["pruned"]["value"] == math.inf
    assert load_record(path).metrics == record.metrics


def test_a_model_that_guesses_is_reported(tmp_path: Path) -> None:
    model = folder_of(tmp_path / "model", 1.0)
    with pytest.warns(UserWarning, match="on builtin is that of guessing among 4096 tokens"):
        start(tmp_path, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_chance("builtin", {"value": 3600.0}, 4096)
        warn_if_infinite("builtin", {"value": 3600.0})
        warn_if_infinite("rte", {"acc": 0.5})


def test_an_infinite_perplexity_has_no_standard_error() -> None:
    model = tiny_llama().model
    model.lm_head.weight.data.fill_(math.nan)
    figures = perplexity(model, random_tokens(3, 8))
    assert (figures.value, figures.stderr, figures.windows) == (math.inf, None, 3)
