"""The command line of a grid: from overrides to the runs that they ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neuroal.cli_compose import compose_run, parse
from neuroal.config import RunConfig, conf_dir, register
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration
from neuroal.grid.planning import PlannedRun, plan_runs
from neuroal.grid.status import State, status_of
from neuroal.usage import wrong_name

GRID = "hydra_plugins.neuroal_grid.sweeper.GridSweeper"


def planned(overrides: Sequence[str]) -> tuple[Declaration, list[PlannedRun]]:
    """The grid that `overrides` name and narrow, and its runs.

    Raises:
        UserError: no grid, or a choice in it that cannot be composed.
    """
    with _hydra():
        declaration, fixed = _narrowed(overrides)
        runs = plan_runs(declaration, fixed, lambda found: compose_run("config", found, []))
    return declaration, runs


def declared(overrides: Sequence[str]) -> Declaration:
    """The grid that `overrides` name and narrow, its choices not checked.

    Raises:
        UserError: no grid.
    """
    with _hydra():
        return _narrowed(overrides)[0]


def _hydra() -> AbstractContextManager[None]:
    register()
    GlobalHydra.instance().clear()
    return initialize_config_dir(str(conf_dir()), version_base="1.3")


def _narrowed(overrides: Sequence[str]) -> tuple[Declaration, list[str]]:
    """The grid, and the overrides that hold in all its runs."""
    parsed = parse(overrides)
    declaration = _read(parsed)
    given, fixed = spread(parsed, declaration.axes)
    return declaration.narrowed(given), fixed


def spread(
    parsed: Sequence[Override], axes: Collection[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """What the command line says about a grid with `axes`, and what holds in all its runs.

    Returns:
        Key → values of all that concerns the grid, and the other overrides as they are.
    """
    given: dict[str, list[str]] = {}
    fixed = []
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise UserError(f"{override.input_line}: give the values one by one")
            given[key] = [str(text) for text in override.sweep_string_iterator()]
        elif key == "task.names":
            value = override.value()
            given[key] = [str(name) for name in (value if isinstance(value, list) else [value])]
        elif key in axes or key in ("pruner", "topup", "refine"):
            given[key] = [override.get_value_element_as_str()]
        else:
            fixed.append(str(override.input_line))
    return given, fixed


def _read(parsed: Sequence[Override]) -> Declaration:
    asked = [str(o.input_line) for o in parsed if _declares(o)]
    for override in parsed:
        if override.get_key_element() == "+experiment":
            wrong = wrong_name("experiment", override.get_value_element_as_str())
            if wrong:
                raise UserError(wrong)
    node = compose("config", asked, return_hydra_config=True).hydra.sweeper
    if node.get("_target_") != GRID:
        raise UserError(
            "no grid is named: give +experiment=paper, +experiment=zoo, or a file of your own in "
            "conf/experiment"
        )
    plain = OmegaConf.to_container(node)
    assert isinstance(plain, dict)
    return Declaration.from_node({str(key): value for key, value in plain.items()})


def _declares(override: Override) -> bool:
    key = override.get_key_element().lstrip("+~")
    return key == "experiment" or key.startswith("hydra.sweeper")


def multirun_grid(
    overrides: Sequence[str], multirun: bool, otherwise: Callable[[RunConfig], None]
) -> tuple[Callable[[RunConfig], None], Callable[[], int]]:
    """Check the grid that Hydra is about to run, if `overrides` name one.

    Returns:
        How each run is done (as `otherwise` where there is no grid), and what tells afterwards how
        many runs of the grid have failed.

    Raises:
        UserError: a wrong choice, or no ``-m``.
    """
    if not any(override.startswith("+experiment=") for override in overrides):
        return otherwise, lambda: 0
    _, runs = planned(overrides)
    if not multirun:
        raise UserError("+experiment is a grid of runs: add -m, or use neuroal-grid run")
    return _attempt, lambda: sum(found.state is State.FAILED for found in status_of(runs))


def _attempt(config: RunConfig) -> None:
    from neuroal.grid.worker import attempt

    reason = attempt(config).reason
    if reason:
        print(f"neuroal: {reason}", file=sys.stderr)
