"""Runs of one sweep or grid never share a target of ``save.model`` or ``save.plan``."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroal.cli.compose import check
from neuroal.cli.declared import planned
from neuroal.errors import UserError

GRID = ["experiment=zoo", "model=zoo/llama", "sparsity=s70", "pruner=wanda", "task.names=[ptb]"]
GRID += ["topup=uniform,owl", "refine=none"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "overrides",
    [
        ["sparsity=s50,s60", "save.model=P"],
        ["sparsity=s50,s60", "save.plan=P"],
        ["seed=range(3)", "save.model=P"],
        ["seed=choice(1,2)", "save.model=P"],
        ["seed=0,1", "save.model=P-${sparsity.ratio}"],
        ["seed=0,1", "save.plan=A,B"],
        ["seed=0,1", "sparsity=s50,s60", "save.model=P-${seed}"],
        ["seed=0,1", "save.model=P/${seed}", "save.plan=./P.json"],
        ["seed=0", "sparsity.ratio=interval(0.5,0.6)", "save.model=P"],
    ],
)
def test_a_sweep_with_one_target_is_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="several runs would write to it; give each its own"):
        check(overrides)


def test_the_remedy_is_accepted() -> None:
    with pytest.raises(UserError) as caught:
        check(["sparsity=s50,s60", "seed=0,1", "save.plan=plan.json"])
    example = "save.plan='plan-${hydra:runtime.choices.sparsity}-${seed}.json'"
    assert str(caught.value).endswith(example)
    check(["sparsity=s50,s60", "seed=0,1", example.replace("'", "")])


@pytest.mark.parametrize(
    "overrides",
    [
        ["sparsity=s50,s60", "save.model=P/${sparsity.ratio}"],
        ["topup=owl,uniform", "save.model=P/${hydra:runtime.choices.topup}"],
        ["seed=0,1", "sparsity=s50,s60", "save.plan=P-${seed}-${sparsity.ratio}"],
        ["seed=0,1", "save.model=P/${hydra:job.num}"],
        ["sparsity=s50", "save.model=P"],
        ["save.model=P,Q"],
        ["sparsity.ratio=interval(0.5,0.6)", "save.model=P/${sparsity.ratio}"],
    ],
)
def test_a_sweep_with_a_target_for_each_run_is_accepted(overrides: list[str]) -> None:
    check(overrides)


def test_a_grid_with_one_target_is_refused() -> None:
    for target in ("save.model=P", "save.plan=P", "save.model=P/${seed}"):
        with pytest.raises(UserError, match="several runs would write to it"):
            planned([*GRID, target])


def test_each_run_of_a_grid_has_the_target_of_its_own_choices() -> None:
    _, runs = planned([*GRID, "seed=0,1", "save.model=P/${hydra:runtime.choices.topup}-${seed}"])
    names = [Path(str(run.config.save.model)).name for run in runs]
    assert sorted(names) == ["owl-0", "owl-1", "uniform-0", "uniform-1"]
