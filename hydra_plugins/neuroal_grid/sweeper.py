"""Hydra's side of a grid: ``neuroal -m +experiment=NAME`` with any launcher.

Hydra finds plugins by the name of this folder. Each job gets the overrides of one run, as if they
stood on the command line.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neuroal.cli_grid import spread
from neuroal.grid.declaration import Declaration


class GridSweeper(BasicSweeper):
    """Sweeps over the runs of a declaration, whose keys are this class's arguments."""

    def __init__(self, max_batch_size: int | None = None, **declared: Any) -> None:
        super().__init__(max_batch_size)
        plain = {key: OmegaConf.to_container(node) for key, node in declared.items()}
        self._declaration = Declaration.from_node(plain)

    def split_arguments(  # type: ignore[override]  # there a static method
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        given, fixed = spread(overrides, self._declaration.axes)
        runs = self._declaration.narrowed(given).runs()
        jobs = [[*fixed, *run.overrides] for run in runs]
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))

    def validate_batch_is_legal(self, batch: Any) -> None:
        """Nothing to do: the command line has checked every choice once."""
