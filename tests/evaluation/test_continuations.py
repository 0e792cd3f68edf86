"""Texts of the dense and the pruned model: greedy, without an end token, and in the record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroal.cli.compose import composed
from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.evaluation.continuations import LENGTH, PROMPT, continuations, decoded, prompts_for
from neuroal.grid.declaration import GridRun
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, status_of
from neuroal.models.load import LoadedModel, load_model
from neuroal.records.store import load_record
from neuroal.run import run
from neuroal.tracking import QuietProgress

SMALL = [
    "pruner=magnitude",
    "topup=uniform",
    "calibration.windows=1",
    "calibration.seqlen=32",
    "task.seqlen=32",
    "task.limit=1",
]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))


def test_continuations_are_those_of_greedy_generation(loaded: LoadedModel) -> None:
    prompts = prompts_for(loaded, 2)
    assert prompts.shape == (2, PROMPT)
    texts = continuations(loaded, prompts, QuietProgress(), "continue")
    stock = loaded.model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=LENGTH,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert texts == decoded(loaded.tokenizer, stock[:, PROMPT:])
    assert len(set(texts)) == 2


def test_a_text_ends_before_eos(loaded: LoadedModel) -> None:
    class Ending:
        def __getattr__(self, name: str) -> Any:
            return getattr(loaded.tokenizer, name)

    tokenizer, prompts = Ending(), prompts_for(loaded, 1)
    whole = continuations(loaded, prompts, QuietProgress(), "continue")[0]
    ids = loaded.tokenizer(whole, add_special_tokens=False)["input_ids"]
    tokenizer.eos_token_id = ids[5]
    ending = dataclasses.replace(loaded, tokenizer=tokenizer)
    cut = continuations(ending, prompts, QuietProgress(), "continue")[0]
    assert whole.startswith(cut)
    assert len(cut) < len(whole)


def test_the_record_has_texts_before_and_after_pruning(tmp_path: Path) -> None:
    first, path = run(composed([*SMALL, f"out={tmp_path}"]))
    assert first.samples == ()
    assert "samples" not in first.costs["seconds"]
    config = composed([*SMALL, "task.samples=2", f"out={tmp_path}"])
    record, again = run(config)
    assert again == path
    assert record.metrics == first.metrics
    assert load_record(path) == record
    assert len(record.samples) == 2
    for sample in record.samples:
        assert sample.keys() == {"prompt", "dense", "pruned"}
        assert sample["dense"] != sample["pruned"]
        assert len(sample["prompt"]) > PROMPT
    stamp = path.stat().st_mtime_ns
    fewer, _ = run(composed([*SMALL, "task.samples=1", f"out={tmp_path}"]))
    assert fewer == record
    assert path.stat().st_mtime_ns == stamp


def test_a_grid_does_a_run_whose_texts_are_missing(tmp_path: Path) -> None:
    record, _ = run(composed([*SMALL, f"out={tmp_path}"]))
    for count, state in ((0, RunState.DONE), (1, RunState.MISSING)):
        config = composed([*SMALL, f"task.samples={count}", f"out={tmp_path}"])
        planned = PlannedRun(GridRun((), ()), config, record.identity)
        (status,) = status_of([planned])
        assert status.state == state


@pytest.mark.parametrize("count", [-1, 65])
def test_an_invalid_number_of_texts_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=rf"task.samples={count}: must be at"):
        composed([f"task.samples={count}"])
