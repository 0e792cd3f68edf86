"""The command ``neuroal``: prune and evaluate."""

from __future__ import annotations

from typing import NoReturn

from neuroal.cli.application import Work, exit_with, start
from neuroal.cli.compose import composed
from neuroal.cli.dry_run import dry_run
from neuroal.cli.help import help_text
from neuroal.cli.jobs import Result
from neuroal.config.schema import RunConfig
from neuroal.models.last import LastModel

__all__ = ["composed", "main"]


def main() -> NoReturn:
    """Run the console script ``neuroal``."""
    exit_with(lambda: start(_prune, help_text, dry_run=dry_run, sweep=_sweep))


def _prune(config: RunConfig, models: LastModel | None = None) -> Result:
    from neuroal.records.result_line import line_of, result_content
    from neuroal.run import run  # late: takes seconds to import

    content = result_content(config, *run(config, models=models))
    return Result(content, lambda: print(line_of(content), flush=True))


def _sweep() -> Work:
    """Return what does the runs of a multirun, which often prune the same model."""
    models = LastModel()
    return lambda config: _prune(config, models)
