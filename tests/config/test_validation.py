"""Contradictions, strangers and numbers that are not finite are refused in one line."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from neuroal.cli.compose import build_methods, check, composed
from neuroal.config.instantiate import build
from neuroal.config.validation import checked
from neuroal.errors import UserError
from neuroal.grid.planning import set_key
from neuroal.pruners.magnitude import Magnitude


def refused(overrides: list[str]) -> str:
    """Compose `overrides` and build their methods, which must fail; return the message."""
    with pytest.raises(UserError) as caught:
        for config in check(overrides)[0]:
            build_methods(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["sparsity=2of4", "sparsity.ratio=0.7"],
        ["sparsity.ratio=0.7", "sparsity=2of4"],
        ["sparsity.ratio=0.7", "sparsity.keep=2", "sparsity.of=4"],
        ["sparsity=s70", "sparsity.keep=2", "sparsity.of=4"],
        ["sparsity=2of4", "++sparsity.ratio=0.7"],
        ["sparsity=2of4", "sparsity.ratio=0.5,0.7"],
        ["sparsity=s70,2of4", "sparsity.ratio=0.7"],
    ],
)
def test_a_ratio_that_contradicts_the_pattern_is_refused(overrides: list[str]) -> None:
    assert refused(overrides).startswith(
        "sparsity.ratio=0.7: contradicts the pattern 2:4, which prunes 0.5; leave out"
    )


@pytest.mark.parametrize(
    ("overrides", "ratio"),
    [
        (["sparsity=2of4", "sparsity.ratio=0.5"], 0.5),
        (["sparsity.keep=3", "sparsity.of=8"], 0.625),
        (["sparsity=2of4", "sparsity.keep=1"], 0.75),
        (["sparsity=2of4", "sparsity.keep=null", "sparsity.ratio=0.7"], 0.7),
        (["sparsity.keep=1", "sparsity.of=3", "sparsity.ratio=0.6666667"], 2 / 3),
    ],
)
def test_a_pattern_sets_the_ratio_unless_it_is_set(overrides: list[str], ratio: float) -> None:
    assert composed(overrides).sparsity.ratio == pytest.approx(ratio)


def test_a_ratio_set_on_a_finished_configuration_must_be_that_of_the_pattern() -> None:
    config = composed(["sparsity=2of4"])
    for changed in (lambda: set_key(config, "sparsity.ratio", "0.7"), lambda: _with_ratio(config)):
        with pytest.raises(UserError, match="contradicts the pattern 2:4"):
            changed()
    assert set_key(config, "sparsity.keep", "1").sparsity.ratio == 0.75


def _with_ratio(config: Any) -> Any:
    sparsity = dataclasses.replace(config.sparsity, ratio=0.7)
    return checked(dataclasses.replace(config, sparsity=sparsity))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["refine=dsnot", "refine.variance_power=inf"], "refine.variance_power=inf"),
        (["refine=dsnot", "refine.threshold='nan'"], "refine.threshold=nan"),
        (["pruner=sparsegpt", "pruner.damping=-inf"], "pruner.damping=-inf"),
        (["topup.block_candidates=[0.1,inf]"], "topup.block_candidates=inf"),
        (["logger.timeout=inf"], "logger.timeout=inf"),
        (["sparsity.ratio=nan"], "sparsity.ratio=nan"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(overrides: list[str], key: str) -> None:
    assert refused(overrides) == f"{key}: must be a finite number"


def test_every_number_of_every_method_must_be_finite() -> None:
    """A method of the user is no exception, whatever its parameters are called."""
    node = {"_target_": f"{__name__}.Method", "strength": float("inf")}
    with pytest.raises(UserError, match=r"pruner\.strength=inf: must be a finite number"):
        build("pruner", node)
    with pytest.raises(UserError, match=r"pruner\.powers=nan: must be a finite number"):
        build("pruner", {**node, "strength": 1, "powers": [1.0, float("nan")]})
    assert build("pruner", {**node, "strength": 1}).strength == 1.0
    with pytest.raises(UserError, match=r"pruner\.fast=3: must be true or false"):
        build("pruner", {**node, "strength": 1, "fast": 3})


@dataclasses.dataclass(frozen=True)
class Method(Magnitude):
    strength: float
    powers: list[float] = dataclasses.field(default_factory=list)
    fast: bool = False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+a=1", "a: no such group or key"),
        ("++a=1", "a: no such group or key"),
        ("+sede=1", "did you mean 'seed'"),
        ("+model.a=1", "model.a: no such key; there are: name, source"),
        ("++task.limt=1", "did you mean 'limit'"),
        ("+save.modle=X", "did you mean 'model'"),
        ("+a.b.c=1", "a: no such group or key"),
        ("+pruner.foo=1", "pruner.foo: Wanda has no such parameter"),
    ],
)
def test_keys_that_the_schema_lacks_are_refused(override: str, message: str) -> None:
    assert message in refused([override])


@pytest.mark.parametrize("override", ["++seed=3", "+experiment=zoo", "+hydra.job.name=x"])
def test_a_plus_before_what_exists_is_accepted(override: str) -> None:
    check([override.replace("+experiment", "experiment")])


@pytest.mark.parametrize(
    "override",
    [
        "seed=1.5",
        "seed=true",
        "batch=true",
        "save.masks=3",
        "save.masks=0.5",
        "sparsity.keep=true",
        "sparsity.keep=2.0",
        "topup.rows_with_updates=3",
        "calibration.windows=inf",
    ],
)
def test_values_of_another_type_are_refused(override: str) -> None:
    assert refused(["sparsity.of=4", override]).startswith(override.partition("=")[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("logger.tags=['']", "1 to 64 characters"),
        ("logger.tags=[a,'  ']", "1 to 64 characters"),
        (f"logger.tags=[{'a' * 65}]", "1 to 64 characters"),
        (f"logger.project={'a' * 129}", "1 to 128 characters"),
        ("logger.project=a/b", "must not contain /"),
        ("logger.group=''", "1 to 128 characters"),
    ],
)
def test_names_that_wandb_refuses_are_refused(override: str, message: str) -> None:
    assert message in refused([override])
