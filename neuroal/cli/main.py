"""The command ``neuroal``: prune and evaluate."""

from __future__ import annotations

from typing import NoReturn

from neuroal.cli.application import exit_with, start
from neuroal.cli.compose import composed
from neuroal.cli.dry_run import dry_run
from neuroal.cli.help import help_text
from neuroal.cli.jobs import Result
from neuroal.config.schema import RunConfig

__all__ = ["composed", "main"]


def main() -> NoReturn:
    """Run the console script ``neuroal``."""
    exit_with(lambda: start(_prune, help_text, dry_run=dry_run))


def _prune(config: RunConfig) -> Result:
    from neuroal.records.result_line import line_of, result_content
    from neuroal.run import run  # late: takes seconds to import

    content = result_content(config, *run(config))
    return Result(content, lambda: print(line_of(content), flush=True))
