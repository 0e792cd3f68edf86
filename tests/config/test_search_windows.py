"""A run without ``calibration.search_windows`` takes the number of its top-up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import neuroal
from neuroal.cli.compose import composed
from neuroal.config.instantiate import named_method
from neuroal.config.schema import conf_dir
from neuroal.records.identity import identity_of
from neuroal.topups.base import Allocation, AllocationContext
from neuroal.topups.uniform import Uniform
from tests.architectures import model_of
from tests.small_models import random_tokens

TOPUPS = [path.stem for path in sorted((conf_dir() / "topup").glob("*.yaml"))]


@pytest.mark.parametrize("topup", TOPUPS)
def test_a_configuration_has_the_number_that_the_class_declares(topup: str) -> None:
    windows = composed([f"topup={topup}"]).calibration.search_windows
    assert windows == named_method("topup", topup).default_windows
    assert windows == (64 if topup in ("fisher", "marginal") else 8)


def test_a_number_that_is_set_wins() -> None:
    config = composed(["topup=fisher", "calibration.search_windows=16"])
    assert config.calibration.search_windows == 16
    null = composed(["topup=fisher", "calibration.search_windows=null"])
    assert null.calibration.search_windows == 64


def test_the_identity_contains_the_resolved_number() -> None:
    def identity(*overrides: str) -> str:
        return identity_of(composed(overrides))

    assert identity() == identity("calibration.search_windows=8")
    assert identity("topup=fisher") == identity("topup=fisher", "calibration.search_windows=64")
    assert identity("topup=fisher") != identity("topup=fisher", "calibration.search_windows=32")


def test_a_method_of_the_user_declares_its_own_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "from neuroal.topups.uniform import Uniform",
        "class Many(Uniform):",
        "    default_windows = 24",
        "class Plain(Uniform): pass",
    ]
    (tmp_path / "own_windows.py").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for name, windows in (("Many", 24), ("Plain", 8)):
        config = composed([f"topup._target_=own_windows.{name}", "topup=uniform"])
        assert config.calibration.search_windows == windows


def test_python_calls_take_the_same_number() -> None:
    seen: list[int] = []

    class Seen(Uniform):
        searches = True
        default_windows = 3

        def allocate(self, context: AllocationContext) -> Allocation:
            seen.append(len(context.tokens))
            return super().allocate(context)

    tokens: Any = random_tokens(5, 16)
    neuroal.prune(model_of("llama"), tokens, pruner="magnitude", topup=Seen())
    neuroal.prune(model_of("llama"), tokens, pruner="magnitude", topup=Seen(), search_windows=2)
    assert seen == [3, 2]


def test_windows_that_do_not_suffice_are_reported_before_a_model_is_loaded() -> None:
    from neuroal.pipeline import make_recipe

    few = composed(["topup=fisher", "calibration.search_windows=4"])
    with pytest.raises(neuroal.UserError, match=r"calibration\.search_windows=8 or more"):
        make_recipe(few)
    short = composed(["topup=fisher", "calibration.seqlen=8"])
    with pytest.raises(neuroal.UserError, match=r"topup\.skip=8: leaves no token"):
        make_recipe(short)
