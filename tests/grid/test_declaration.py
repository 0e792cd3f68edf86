"""Declared grids have the cases of the paper, and the command line restricts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest

from neuroal.cli import declared as reading
from neuroal.cli.compose import compose_run, hydra_session
from neuroal.cli.declared import planned
from neuroal.config.schema import RunConfig
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration, Part
from neuroal.grid.estimate import Estimate
from neuroal.grid.planning import plan_runs
from neuroal.grid.report import cases_text, plan_text
from neuroal.grid.status import RunState, Status
from neuroal.records.identity import identity_of

PAPER = ("llama-7b", "mistral-7b", "phi-2", "opt-6.7b")
PLAIN = (("owl", "none"),)
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


def declared(overrides: list[str]) -> Declaration:
    """Return the grid that `overrides` name and narrow, without validating its runs."""
    with hydra_session():
        return reading.declared(overrides)[0]


def test_the_papers_grid_has_276_cases_for_each_competitor() -> None:
    declaration, runs = planned(["+experiment=paper"])
    expected = {
        *product(PAPER, (0.6, 0.7, 0.8), ("Magnitude", "Wanda", "Multiflow"), LM),
        *product(PAPER, (0.6, 0.7, 0.8), ("Wanda", "Multiflow"), ZERO_SHOT),
    }
    assert declaration.count() == len(expected) == 276
    cases: dict[tuple[object, object], list[tuple[object, ...]]] = {}
    for run in runs:
        competitor = (run.config.topup["_target_"], run.config.refine["_target_"])
        pruner = run.config.pruner["_target_"].rpartition(".")[2]
        model = dict(run.run.choices)["model"]
        for task in run.config.task.names:
            case = (model, run.config.sparsity.ratio, pruner, task)
            cases.setdefault(competitor, []).append(case)
    assert len(cases) == len(declaration.competitors) >= 5
    for of_competitor in cases.values():
        assert len(of_competitor) == 276
        assert set(of_competitor) == expected
    assert len(runs) == len(cases) * 4 * 3 * 3  # a run answers all its cases
    assert "276 cases for each competitor" in cases_text(declaration)


def test_the_zoos_grid_has_240_cases_and_reports_the_36_missing_ones() -> None:
    declaration, runs = planned(["+experiment=zoo"])
    text = cases_text(declaration)
    assert declaration.count() == 240
    assert declaration.count(missing=True) == 36
    assert "240 of 276 cases" in text
    assert "36 missing: c4: its shards" in text
    assert not any("c4" in run.config.task.names for run in runs)
    assert all("c4_sample" in run.config.task.names for run in runs)
    assert declared(["+experiment=zoo", "~hydra.sweeper.missing.c4"]).count() == 276


def test_planned_configurations_equal_composed_ones() -> None:
    from neuroal.cli.compose import composed

    overrides = ["+experiment=zoo", "model=zoo/opt,zoo/phi", "seed=0,3", "calibration.windows=16"]
    _, runs = planned(overrides)
    fixed = ["calibration=builtin", "calibration.windows=16", "logger.group=zoo"]
    for run in runs[:: len(runs) // 4]:
        alone = composed([*fixed, *run.run.overrides])
        assert run.config == alone
        assert run.identity == identity_of(alone)


def test_options_of_two_groups_that_set_one_key_are_planned_as_composed() -> None:
    def compose(overrides: Sequence[str]) -> RunConfig:
        """Compose with an option of calibration that sets a key of the model's option as well."""
        config = compose_run(overrides)[0]
        sets_bos = "calibration=c4" in overrides
        return replace(config, task=replace(config.task, bos="stream")) if sets_bos else config

    axes = {"model": ("zoo/llama", "gemma3-270m"), "calibration": ("builtin", "c4")}
    competitors = ((("topup", "uniform"), ("refine", "none")),)
    with hydra_session():
        runs = plan_runs(Declaration(axes, (Part(("wanda",), LM),), competitors), [], compose)
    values = [(*(value for _, value in run.run.choices[:2]), run.config.task.bos) for run in runs]
    assert values == [
        ("zoo/llama", "builtin", "stream"),
        ("zoo/llama", "c4", "stream"),
        ("gemma3-270m", "builtin", "window"),
        ("gemma3-270m", "c4", "stream"),
    ]


def test_every_choice_is_composed_once() -> None:
    composed: list[tuple[str, ...]] = []

    def compose(overrides: Sequence[str]) -> RunConfig:
        composed.append(tuple(overrides))
        return compose_run(overrides)[0]

    axes = {"model": ("zoo/llama", "zoo/opt"), "sparsity": ("s60", "s70"), "seed": ("0", "1", "2")}
    competitors = tuple((("topup", name), ("refine", "none")) for name in ("uniform", "owl"))
    with hydra_session():
        runs = plan_runs(Declaration(axes, (Part(("wanda",), LM),), competitors), [], compose)
    assert len(runs) == 24
    # The first run; its model, sparsity, pruner and competitor, which change nothing; the others.
    assert len(composed) == 1 + 4 + 3


@pytest.mark.parametrize("models", ["zoo/llama,gemma3-270m", "gemma3-270m,zoo/llama"])
@pytest.mark.parametrize(
    ("bos", "expected"),
    [
        ([], {("llama", "stream", "stream"), ("gemma", "window", "window")}),
        (["task.bos=stream"], {("llama", "stream", "stream"), ("gemma", "stream", "window")}),
        (["calibration=c4"], {("llama", "stream", "stream"), ("gemma", "window", "window")}),
        (
            ["calibration.bos=stream,window"],
            {
                ("llama", "stream", "stream"),
                ("llama", "stream", "window"),
                ("gemma", "window", "stream"),
                ("gemma", "window", "window"),
            },
        ),
    ],
)
def test_a_model_that_sets_keys_of_other_groups_keeps_them_unless_the_command_line_sets_them(
    models: str, bos: list[str], expected: set[tuple[str, str, str]]
) -> None:
    from neuroal.cli.compose import composed

    narrowed = ["pruner=wanda", "topup=uniform,owl", "refine=none", "sparsity=s60,s70"]
    _, runs = planned(["experiment=zoo", f"model={models}", *narrowed, *bos])
    settings = {
        (run.config.model.path.partition("3")[0], run.config.task.bos, run.config.calibration.bos)
        for run in runs
    }
    assert settings == expected
    fixed = ["calibration=builtin", "logger.group=zoo", *(o for o in bos if "," not in o)]
    for run in runs[:: len(runs) // 4]:
        assert run.config == composed([*fixed, *run.run.overrides])


@pytest.mark.parametrize(
    ("overrides", "cases", "competitors", "runs"),
    [
        (["model=zoo/llama,zoo/opt"], 120, 10, 180),
        (["pruner=wanda"], 4 * 3 * 9, 10, 120),
        (["pruner=sparsegpt", "topup=uniform"], 4 * 3 * 9, 1, 12),
        (["topup=uniform,owl"], 240, 2, 72),
        (["topup=uniform", "refine=none,dsnot"], 240, 2, 72),
        (["task.names=[rte]", "topup=owl"], 36, 1, 36),
        (["task.names=[c4_sample]", "topup=owl"], 0, 1, 36),
        (["task=builtin", "topup=owl"], 36, 1, 36),
        (["task=lm", "task.names=[rte]", "topup=owl"], 36, 1, 36),
        (["topup=owl,neuroal"], 240, 2, 72),
        (["topup=evolve"], 240, 1, 36),
        (["refine=dsnot"], 240, 1, 36),
        (["topup=owl,alpha", "refine=none,dsnot"], 240, 4, 144),
        (["task.names=[wikitext2]", "topup=owl"], 36, 1, 36),
        (["task.names=[builtin]", "topup=owl"], 4 * 3 * 3, 1, 36),
        (["seed=0,1,2", "topup=owl"], 240, 1, 108),
        (["calibration.windows=8,16", "topup=owl"], 480, 1, 72),
    ],
)
def test_the_command_line_restricts_every_group(
    overrides: list[str], cases: int, competitors: int, runs: int
) -> None:
    declaration = declared(["+experiment=zoo", *overrides])
    assert declaration.count() == cases
    assert len(declaration.competitors) == competitors
    assert len(set(declaration.runs())) == runs


def test_tasks_of_the_command_line_hold_for_all_pruners() -> None:
    declaration = declared(["experiment=paper", "task.names=[rte,c4]"])
    tasks = [declaration.tasks_of(pruner) for pruner in ("magnitude", "wanda", "multiflow")]
    assert tasks == [("rte", "c4")] * 3


def test_a_topup_that_is_declared_with_a_refinement_alone_keeps_it() -> None:
    competitors = tuple((("topup", t), ("refine", r)) for t, r in (("uniform", "dsnot"), *PLAIN))
    declaration = Declaration({}, (Part(("wanda",), LM),), competitors)
    narrowed = declaration.narrowed({"topup": ["uniform", "owl"]})
    assert narrowed.competitors == competitors


def test_a_pair_selects_the_declared_competitors_with_their_parameters() -> None:
    overrides = ["experiment=adaptive", "topup=neuroal,owl", "refine=none"]
    assert [dict(choices) for choices in declared(overrides).competitors] == [
        {"topup": "neuroal", "refine": "none", "topup.search": "exact"},
        {"topup": "neuroal", "refine": "none", "topup.search": "adaptive"},
        {"topup": "owl", "refine": "none"},
    ]


def test_choices_with_equal_configurations_are_one_run() -> None:
    _, runs = planned(["+experiment=zoo", "sparsity.ratio=0.65", "topup=owl", "pruner=wanda"])
    assert len(runs) == 4  # the models


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "no grid is named"),
        (["+experiment=papper"], "did you mean 'paper'"),
        (["+experiment=zoo", "model=zoo/lama"], "did you mean 'zoo/llama'"),
        (["+experiment=zoo", "topup.step=block,row"], "declare competitors"),
        (["+experiment=zoo", "task=lm,zero_shot"], "list them in task.names"),
        (["+experiment=zoo", "task.names=[rte]", "pruner=nothing"], "pruner=nothing"),
    ],
)
def test_invalid_grids_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        planned(overrides)
    assert "\n" not in str(raised.value)


def test_an_invalid_declaration_names_the_required_keys() -> None:
    with pytest.raises(UserError, match="axes, parts and competitors"):
        Declaration.from_node({"axes": {}})


def test_the_plan_estimates_unfinished_runs() -> None:
    _, runs = planned(["+experiment=paper", "model=llama-7b", "topup=owl"])
    statuses = [Status(RunState.MISSING, ("c4",))] * len(runs)
    text = plan_text(runs, statuses, Estimate(7200.0, 2.0**34, 9, 3, "H100"), every=False)
    assert "9 runs: 0 done, 0 running, 0 failed, 9 missing" in text
    assert "left for one worker: about 2.0 hours on H100, memory about 16 GiB" in text
    assert "(3 of 9 runs by earlier runs of the model)" in text
    unknown = plan_text(runs, statuses, Estimate(None, None, 9, 0, "H100"), every=False)
    reason = "no earlier run of such a model on H100; try plan --measure"
    assert f"unknown time ({reason}), memory unknown" in unknown
