"""Outputs that would replace an input, the records or each other are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuroal.cli.compose import composed
from neuroal.errors import UserError


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a model, a text, a plan, data, and links to some of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/M", "data", "runs/state", "real"):
        Path(name).mkdir(parents=True)
    for name in ("models/M/config.json", "models/M/w.bin", "text.txt", "models/x.gguf"):
        Path(name).write_text("text")
    Path("plan.json").write_text('{"sparsity": 0.7, "ratios": {}}')
    Path("to_runs").symlink_to("runs")
    Path("to_models").symlink_to(tmp_path / "models")
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")


HF = ["model=hf", "model.path=models/M"]
REFUSED = {
    "the records": ["save.model=runs"],
    "the records, not there yet": ["out=A", "save.model=A"],
    "the records, spelled otherwise": ["save.model=data/../runs/."],
    "the records through a link": ["save.model=to_runs"],
    "a parent of the records": ["out=B/runs", "save.model=B"],
    "a parent of the records through a link": ["out=real/../to_models/r", "save.model=models"],
    "locks": ["save.model=runs/state"],
    "below the locks": ["save.model=runs/state/model"],
    "dense results": ["save.model=runs/measured"],
    "dense results through a link": ["save.plan=to_runs/measured/plan.json"],
    "a record": ["save.plan=runs/0123456789abcdef.json"],
    "masks": ["save.plan=runs/0123456789abcdef.masks.npz"],
    "a folder in place of a record": ["save.model=runs/0123456789abcdef.json"],
    "files of W&B": ["logger=wandb", "save.model=runs/wandb"],
    "the model": [*HF, "save.model=models/M"],
    "the model through a link": [*HF, "save.model=to_models/M"],
    "a parent of the model": [*HF, "save.model=models"],
    "inside the model": [*HF, "save.model=models/M/pruned"],
    "a plan inside the model": [*HF, "save.plan=models/M/plan.json"],
    "records in the model": [*HF, "out=models/M"],
    "a name of the hub": ["model=hf", "model.path=org/model", "save.model=org/model"],
    "a GGUF file": ["model=gguf", "model.path=models/x.gguf", "save.model=models"],
    "the text": ["calibration=text", "calibration.path=text.txt", "save.plan=text.txt"],
    "the plan that is read": ["topup=plan", "topup.path=plan.json", "save.plan=./plan.json"],
    "the plan where a search starts": ["topup=marginal", "topup.start=plan.json", "save.model=."],
    "the data": ["data.root=data", "save.model=data"],
    "one target": ["save.model=A", "save.plan=A"],
    "a plan in the model that is saved": ["save.model=A", "save.plan=A/plan.json"],
    "a model below a plan": ["save.model=A/model", "save.plan=A"],
    "a plan in place of the records": ["out=A", "save.plan=A"],
}


@pytest.mark.parametrize("case", REFUSED)
def test_overlaps_are_refused_before_any_work(case: str) -> None:
    with pytest.raises(UserError, match=r"overlaps|is a folder|is a file"):
        composed(REFUSED[case])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("save.model=dangling", "symbolic link"),
        ("save.model=loop", "symbolic link"),
        ("save.plan=dangling", "symbolic link"),
        ("save.model=models", "did not write"),
        ("save.model=text.txt", "is a file"),
        ("save.plan=models", "is a folder"),
        ("save.plan=text.txt", "not a saved plan"),
        ("save.model=''", "is empty"),
        ("save.plan=' '", "is empty"),
        ("out=''", "is empty"),
        ("save.model=text.txt/model", "cannot be written"),
    ],
)
def test_targets_that_are_something_else_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        composed([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["save.model=runs/pruned", "save.plan=runs/plan.json"],
        ["save.model=runs/new/pruned"],
        ["save.model=runs/stateful"],
        ["save.model=runs/wandb"],
        ["save.model=real"],
        ["save.model=models/pruned", *HF],
        ["save.model=to_models/pruned"],
        ["out=models/M/runs", *HF],
        ["out=models", *HF],
        ["save.plan=models/plan.json", *HF],
        ["data.root=data", "save.model=data/pruned"],
    ],
)
def test_targets_that_replace_nothing_stay_legal(overrides: list[str]) -> None:
    composed(overrides)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_target_whose_parent_is_read_only_is_refused(tmp_path: Path) -> None:
    Path("real/model").mkdir()
    Path("real").chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            composed(["save.model=real/model"])
    finally:
        Path("real").chmod(0o700)
