"""Hydra sweeper for declared grids: ``neuroal -m experiment=NAME`` with any launcher.

Hydra discovers plugins by the name of this folder. Each job receives the overrides of one run, as
on the command line.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neuroal.grid.declaration import Declaration
from neuroal.grid.overrides import narrow


class GridSweeper(BasicSweeper):
    """Sweep over the runs of a declared grid.

    Args:
        max_batch_size: number of runs passed to the launcher at once; None: all.
        declared: the keys of `neuroal.grid.declaration.Declaration`.
    """

    def __init__(self, max_batch_size: int | None = None, **declared: Any) -> None:
        super().__init__(max_batch_size)
        plain = {key: OmegaConf.to_container(node) for key, node in declared.items()}
        self._declaration = Declaration.from_node(plain)

    def split_arguments(  # type: ignore[override]  # static in the base class
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        declaration, fixed = narrow(self._declaration, overrides)
        jobs = [[*fixed, *run.overrides] for run in declaration.runs()]
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))

    def validate_batch_is_legal(self, batch: Any) -> None:
        """Skip Hydra's check: the command line has checked every choice."""
