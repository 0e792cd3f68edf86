"""Every saved model has a card, whose command repeats the run."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import yaml

from neuroal.cli.compose import composed
from neuroal.config.command import command_of
from neuroal.records.identity import identity_of
from neuroal.run import run

SMALL = ["model=zoo/opt", "topup=uniform", "calibration.windows=1", "calibration.seqlen=16"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["sparsity=2of4", "topup=uniform", "seed=3"],
        ["sparsity.ratio=0.65", "pruner=sparsegpt", "refine=dsnot", "topup=owl"],
        [
            "model=hf",
            "model.path=/nowhere/b c",
            "model.exclude=['0.*',self_attn.*]",
            "topup=marginal",
        ],
        [
            "topup=neuroal",
            "topup.step=block",
            "task=lm",
            "task.names=[builtin,ptb]",
            "rules=reference",
        ],
    ],
)
def test_the_command_of_a_run_composes_the_same_run(overrides: list[str]) -> None:
    config = composed(overrides)
    program, *again = shlex.split(command_of(dataclasses.asdict(config)))
    assert program == "neuroal"
    assert identity_of(composed(again)) == identity_of(config)
    assert composed(again).task == config.task


def test_a_saved_model_has_a_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    task = ["task.limit=1", "task.seqlen=32"]
    config = composed([*SMALL, *task, f"out={tmp_path / 'runs'}", f"save.model={tmp_path / 'P'}"])
    record, _ = run(config)
    card = (tmp_path / "P" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "pruning" in front["tags"]
    for text in ("| base model | zoo/opt |", "70 %: 0.7000 zeros", "| block | density |"):
        assert text in card
    dense, pruned = (record.metrics["builtin"][m]["value"] for m in ("dense", "pruned"))
    assert f"| builtin, first 1 | perplexity | {dense:.5g} | {pruned:.5g} |" in card
    command = card.split("```sh\n")[1].split("\n```")[0]
    assert identity_of(composed(shlex.split(command)[1:])) == record.identity


def test_a_dtype_other_than_that_of_the_checkpoint_is_stated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for dtype in ("float32", "bfloat16"):
        caplog.clear()
        out = [f"out={tmp_path / 'runs'}", f"save.model={tmp_path / dtype}", f"model.dtype={dtype}"]
        run(composed([*SMALL, "task=none", *out]))
        card = (tmp_path / dtype / "README.md").read_text()
        differs = dtype == "float32"
        assert ("the checkpoint of the base model has bfloat16" in card) == differs
        assert ("saved in float32; its checkpoint has bfloat16" in caplog.text) == differs
