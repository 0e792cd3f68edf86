"""Mistakes in a method of the user's own: one line with the method, the linear and the shape."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuroal.cli import main
from tests.fuzzing.command import Outcome, call
from tests.fuzzing.inputs import command, write_model

METHODS = """
from dataclasses import dataclass
import torch
from neuroal.pruners.base import MaskRefiner, ScorePruner
from neuroal.topups.base import Allocation, TopUp
from neuroal.sparsity.plan import SparsityPlan

@dataclass(frozen=True)
class Short(ScorePruner):
    def scores(self, weight, statistics):
        return weight.abs()[:, 1:]

@dataclass(frozen=True)
class Raises(ScorePruner):
    def scores(self, weight, statistics):
        return weight @ torch.ones(3)

@dataclass(frozen=True)
class Abstract(ScorePruner):
    noise: float = 0.1

@dataclass(frozen=True)
class Refuses(ScorePruner):
    noise: float = 0.1
    def __post_init__(self):
        raise ValueError("noise is odd")
    def scores(self, weight, statistics):
        return weight.abs()

@dataclass(frozen=True)
class Plain:
    pass

@dataclass(frozen=True)
class Stops(TopUp):
    def allocate(self, context):
        return {}["a"]

@dataclass(frozen=True)
class Nothing(TopUp):
    def allocate(self, context):
        return None

@dataclass(frozen=True)
class Rows(TopUp):
    def allocate(self, context):
        ratios = {linear.key: torch.full((3,), 0.7) for linear in context.decoder}
        return Allocation(SparsityPlan(ratios, context.settings.sparsity))

@dataclass(frozen=True)
class Breaks(MaskRefiner):
    needs = frozenset()
    def refine(self, weight, mask, statistics, rules):
        raise RuntimeError("no refinement")

def called(*arguments, **settings):
    open("called", "w").close()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a model and the module ``own`` of wrong methods."""
    write_model(tmp_path / "model")
    (tmp_path / "own.py").write_text(METHODS)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return tmp_path


def line(folder: Path, *arguments: str) -> str:
    """Return the one line by which a run is refused."""
    outcome = call(main.main, command(*arguments), folder)
    sys.modules.pop("own", None)
    assert outcome.problem is None, outcome.stderr
    assert outcome.code == 2
    return outcome.stderr.removeprefix("neuroal: ").strip()


def test_a_score_of_another_shape_names_method_linear_and_shape(folder: Path) -> None:
    message = line(folder, "pruner._target_=own.Short")
    assert message == (
        "pruner=short: '0.self_attn.q_proj': the tensor of scores has the shape (16, 15); "
        "must be (16, 16)"
    )


@pytest.mark.parametrize("topup", ["uniform", "owl", "neuroal"])
def test_an_error_inside_names_method_linear_shape_and_line(folder: Path, topup: str) -> None:
    message = line(folder, "pruner._target_=own.Raises", f"topup={topup}")
    assert message.startswith("pruner=raises: '0.self_attn.q_proj': RuntimeError: size mismatch")
    assert "(line 16 of own.py, on a weight of shape (16, 16)); HYDRA_FULL_ERROR=1" in message


def test_a_missing_method_is_named(folder: Path) -> None:
    message = line(folder, "pruner._target_=own.Abstract")
    assert message.startswith("pruner._target_=own.Abstract: Abstract lacks the method scores(self")


def test_a_class_that_refuses_its_parameters_is_named(folder: Path) -> None:
    message = line(folder, "pruner._target_=own.Refuses", "+pruner.noise=3")
    assert message.startswith("pruner._target_=own.Refuses: does not accept its parameters")
    assert "ValueError: noise is odd" in message


@pytest.mark.parametrize(
    ("topup", "problem"),
    [
        ("Stops", "topup=stops: KeyError: 'a' (line 37 of own.py); HYDRA_FULL_ERROR=1"),
        ("Nothing", "topup=nothing: allocate returned a NoneType; must return an Allocation"),
        ("Rows", "topup=rows: plan: '0.self_attn.q_proj' has 3 row ratios for 16 rows"),
    ],
)
def test_a_wrong_topup_is_named(folder: Path, topup: str, problem: str) -> None:
    assert line(folder, f"topup._target_=own.{topup}").startswith(problem)


def test_a_refinement_that_raises_is_named(folder: Path) -> None:
    message = line(folder, "refine._target_=own.Breaks", "pruner=wanda")
    assert message.startswith("refine=breaks: '0.self_attn.q_proj': RuntimeError: no refinement")


@pytest.mark.parametrize(
    "target", ["own.called", "own.Plain", "own.Stops", "os.system", "os", "own", "../../etc", "1"]
)
def test_what_is_no_pruner_is_refused_before_it_is_called(folder: Path, target: str) -> None:
    message = line(folder, f"pruner._target_={target}")
    assert message.startswith(f"pruner._target_={target}: ")
    assert not (folder / "called").exists()


@pytest.mark.parametrize("text", ["def", "raise SystemExit(0)", "import nothing", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_named(folder: Path, text: str) -> None:
    (folder / "own.py").write_text(text)
    message = line(folder, "pruner._target_=own.Short")
    assert message.startswith("pruner._target_=own.Short: cannot be imported (")


def traced(folder: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setenv("HYDRA_FULL_ERROR", variable)
    return call(main.main, command("pruner._target_=own.Raises"), folder)


def test_hydra_full_error_prints_the_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "return weight @ torch.ones(3)" in traced(folder, "1", monkeypatch).stderr
    assert "Traceback" not in traced(folder, "0", monkeypatch).stderr
