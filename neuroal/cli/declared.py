"""Read a declared grid from overrides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from neuroal.cli.compose import GRID, compose_run, composing, hydra_session, with_experiment
from neuroal.cli.help import wrong_name
from neuroal.cli.overrides import parse
from neuroal.cli.targets import with_own_targets
from neuroal.errors import UserError
from neuroal.grid.declaration import Declaration
from neuroal.grid.overrides import narrow
from neuroal.grid.planning import PlannedRun, plan_runs


def planned(overrides: Sequence[str]) -> tuple[Declaration, list[PlannedRun]]:
    """Return the grid that `overrides` name and narrow, and its runs.

    Raises:
        UserError: `overrides` name no grid, or a configuration of the grid is invalid.
    """
    with hydra_session():
        declaration, fixed = declared(overrides)
        runs = plan_runs(declaration, fixed, lambda own: compose_run(own)[0])
        runs = with_own_targets(runs, lambda run: compose_run([*fixed, *run.run.overrides])[0].save)
    return declaration, runs


def declared(overrides: Sequence[str]) -> tuple[Declaration, list[str]]:
    """Return the grid that `overrides` name and narrow, and the overrides of all its runs."""
    parsed = parse(with_experiment(overrides))
    return narrow(_read([o for o in parsed if _declares(o)]), parsed)


def _declares(override: Override) -> bool:
    key = override.get_key_element().lstrip("+~")
    return key in ("experiment", "hydra/sweeper") or key.startswith("hydra.sweeper")


def _read(declaring: Sequence[Override]) -> Declaration:
    for override in declaring:
        if override.get_key_element() == "experiment":
            message = wrong_name("experiment", override.get_value_element_as_str())
            if message:
                raise UserError(message)
    lines = [str(override.input_line) for override in declaring]
    with composing(lines):
        node = compose("config", lines, return_hydra_config=True).hydra.sweeper
    if not isinstance(node, DictConfig) or node.get("_target_") != GRID:
        raise UserError(
            "experiment: no grid is named; use experiment=paper, experiment=zoo, or a file of your "
            "own in conf/experiment"
        )
    plain: Any = OmegaConf.to_container(node)
    return Declaration.from_node(plain)
