"""The grid is the paper's, and the command line narrows it."""

from __future__ import annotations

from itertools import product

import pytest

from neuroal.cli_grid import declared, planned
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration
from neuroal.grid.report import cases_text, plan_text
from neuroal.grid.status import State, Status
from neuroal.records.identity import identity

PAPER = ("llama-7b", "mistral-7b", "phi-2", "opt-6.7b")
LM = ("wikitext2", "ptb", "c4")
ZERO_SHOT = (
    "rte",
    "winogrande",
    "boolq",
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
)


def test_the_papers_grid_has_276_cases_for_each_competitor() -> None:
    declaration, runs = planned(["+experiment=paper"])
    expected = {
        *product(PAPER, (0.6, 0.7, 0.8), ("Magnitude", "Wanda", "Multiflow"), LM),
        *product(PAPER, (0.6, 0.7, 0.8), ("Wanda", "Multiflow"), ZERO_SHOT),
    }
    assert declaration.count() == len(expected) == 276
    found: dict[tuple[object, object], list[tuple[object, ...]]] = {}
    for run in runs:
        competitor = (run.config.topup["_target_"], run.config.refine["_target_"])
        pruner = run.config.pruner["_target_"].rpartition(".")[2]
        model = dict(run.run.choices)["model"]
        for task in run.config.task.names:
            case = (model, run.config.sparsity.ratio, pruner, task)
            found.setdefault(competitor, []).append(case)
    assert len(found) == len(declaration.competitors) >= 5
    for cases in found.values():
        assert len(cases) == 276
        assert set(cases) == expected
    assert len(runs) == len(found) * 4 * 3 * 3  # a run answers all its cases
    assert "276 cases for each competitor" in cases_text(declaration)


def test_the_zoos_grid_has_216_and_says_which_60_are_missing_and_why() -> None:
    declaration, runs = planned(["+experiment=zoo"])
    text = cases_text(declaration)
    assert declaration.count() == 216
    assert declaration.count(missing=True) == 60
    assert "216 of 276 cases" in text
    assert "36 missing: c4: its shards" in text
    assert "24 missing: hellaswag: its documents" in text
    assert not any({"c4", "hellaswag"} & set(run.config.task.names) for run in runs)
    assert all("c4_sample" in run.config.task.names for run in runs)
    full = declared(
        ["+experiment=zoo", "~hydra.sweeper.missing.c4", "~hydra.sweeper.missing.hellaswag"]
    )
    assert full.count() == 276


def test_what_is_composed_once_is_what_each_run_would_compose() -> None:
    from neuroal.cli import composed

    given = ["+experiment=zoo", "model=zoo/opt,zoo/phi", "seed=0,3", "calibration.windows=16"]
    _, runs = planned(given)
    fixed = ["calibration=builtin", "calibration.windows=16", "logger.group=zoo"]
    for run in runs[:: len(runs) // 4]:
        alone = composed([*fixed, *run.run.overrides])
        assert run.config == alone
        assert run.identity == identity(alone)


@pytest.mark.parametrize(
    ("given", "cases", "competitors", "runs"),
    [
        (["model=zoo/llama,zoo/opt"], 108, 8, 144),
        (["pruner=wanda"], 4 * 3 * 8, 8, 96),
        (["pruner=sparsegpt", "topup=uniform"], 4 * 3 * 8, 2, 24),
        (["topup=owl,neuroal"], 216, 2, 72),
        (["topup=evolve"], 216, 1, 36),
        (["refine=dsnot"], 216, 1, 36),
        (["topup=owl,alpha", "refine=none,dsnot"], 216, 4, 144),
        (["task.names=[wikitext2]", "topup=owl"], 36, 1, 36),
        (["task.names=[builtin]", "topup=owl"], 4 * 3 * 3, 1, 36),
        (["seed=0,1,2", "topup=owl"], 216, 1, 108),
        (["calibration.windows=8,16", "topup=owl"], 432, 1, 72),
    ],
)
def test_any_group_can_be_given(given: list[str], cases: int, competitors: int, runs: int) -> None:
    declaration = declared(["+experiment=zoo", *given])
    assert declaration.count() == cases
    assert len(declaration.competitors) == competitors
    assert len(set(declaration.runs())) == runs


def test_choices_that_come_to_the_same_are_one_run() -> None:
    _, runs = planned(["+experiment=zoo", "sparsity.ratio=0.65", "topup=owl", "pruner=wanda"])
    assert len(runs) == 4  # the models


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no grid is named"),
        (["+experiment=papper"], "did you mean 'paper'"),
        (["+experiment=zoo", "model=zoo/lama"], "did you mean 'zoo/llama'"),
        (["+experiment=zoo", "topup.step=block,row"], "declare competitors"),
        (["+experiment=zoo", "task.names=[rte]", "pruner=nothing"], "pruner=nothing"),
    ],
)
def test_mistakes_are_one_line(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        planned(given)
    assert "\n" not in str(raised.value)


def test_what_is_no_grid_says_what_one_needs() -> None:
    with pytest.raises(UserError, match="axes, parts and competitors"):
        Declaration.from_node({"axes": {}})


def test_the_plan_estimates_what_is_left() -> None:
    _, runs = planned(["+experiment=paper", "model=llama-7b", "topup=owl"])
    text = plan_text(runs, [Status(State.MISSING, ("c4",))] * len(runs), on_gpu=True, every=False)
    assert "9 runs: 0 done, 0 running, 0 failed, 9 missing" in text
    assert "left for one worker: about" in text
    assert "unknown" not in text
