"""Shared by all console scripts: exit codes, and starting one run or many."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from neuroal import __version__
from neuroal.cli.compose import build_methods, check, with_experiment
from neuroal.cli.declared import planned
from neuroal.cli.flags import for_hydra, parse_flags
from neuroal.cli.jobs import Jobs, Result
from neuroal.cli.messages import (
    level_of,
    messages_as_lines,
    print_error,
    print_json,
    set_level,
    without_notes_of_hydra,
)
from neuroal.cli.signals import exiting_on_signals
from neuroal.config import schema
from neuroal.config.locations import check_writable
from neuroal.config.schema import RunConfig
from neuroal.config.validation import message_of, resolve
from neuroal.errors import FULL_ERROR, UserError, first_line, full_error, one_line
from neuroal.files.gpu_errors import lost_gpu
from neuroal.files.machine import machine_errors
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, status_of
from neuroal.models.last import LastModel
from neuroal.models.location import locate_model

Work = Callable[[RunConfig], Result | None]
"""Does one run; returns what to print."""
CLOSED_PIPE = 141
"""Exit code if the reader of the output has ended, as in ``neuroal --help | head``."""


def exit_with(work: Callable[[], int | None]) -> NoReturn:
    """Call `work` and exit with its code, 2 after a mistake of the user, or 130 if interrupted."""
    with_traceback = full_error()  # before Hydra is started, which sets the variable
    try:
        with exiting_on_signals(), messages_as_lines(), machine_errors():
            _check_current_folder()
            _check_encoding(sys.argv)
            code = work() or 0
            sys.stdout.flush()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print_error(error, with_traceback=with_traceback)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        sys.exit(CLOSED_PIPE)
    except KeyboardInterrupt:
        print("neuroal: interrupted; finished records are kept", file=sys.stderr)
        sys.exit(130)
    sys.exit(code)


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UserError("the current folder does not exist any more; change to another") from error


def _check_encoding(arguments: Sequence[str]) -> None:
    """Raise `UserError` for an argument that is not UTF-8, which no file or record could hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{argument!a}: is not UTF-8; use UTF-8 on the command line") from error


def start(
    work: Work,
    help_text: Callable[[], str],
    check_overrides: Callable[[Sequence[str]], None] = lambda overrides: None,
    dry_run: Work | None = None,
    sweep: Callable[[], Work] | None = None,
) -> None:
    """Call `work` for every run requested on the command line, or print help or version.

    `check_overrides` raises `UserError` for overrides that the command does not accept.
    `dry_run` says what `work` would do; None: the command has no flag ``--dry-run``. `sweep`
    returns what does the runs of a multirun; None: `work`.
    """
    flags, overrides = parse_flags(sys.argv[1:])
    set_level(level_of(flags))
    check_overrides(overrides)
    if flags.help:
        print(help_text())
    elif flags.version:
        print(f"neuroal {__version__}")
    else:
        if flags.dry_run:
            if dry_run is None:
                raise UserError("--dry-run: is a flag of the command neuroal")
            work = dry_run
        elif sweep is not None and _is_multirun(flags, overrides):
            work = sweep()
        _run(flags, with_experiment(overrides), work)


def _is_multirun(flags: argparse.Namespace, overrides: Sequence[str]) -> bool:
    return flags.multirun or "hydra.mode=MULTIRUN" in overrides


def _run(flags: argparse.Namespace, overrides: Sequence[str], work: Work) -> None:
    """Validate all configurations, then let Hydra start one run or many."""
    if flags.cfg and flags.multirun:
        raise UserError("--cfg: prints the configuration of one run; leave out -m")
    schema.register()
    is_grid, runs = False, list[PlannedRun]()
    if not (flags.hydra_help or flags.info or flags.shell_completion):
        multirun = _is_multirun(flags, overrides)
        configs, is_grid = check(overrides, flags.config_dir, multirun, flags.config_name)
        if not (flags.cfg or flags.dry_run or multirun):
            locate_model(configs[0].model)  # before torch is imported, which takes seconds
        for config in () if flags.cfg else configs:
            check_writable("out", config.out)
            build_methods(config)
    if is_grid and not flags.cfg:
        _, runs = planned(overrides)
        if not flags.multirun:
            raise UserError("experiment: is a grid of runs; add -m, or use neuroal-grid run")
        work = work if flags.dry_run else partial(_attempt, models=LastModel())
    if code := _run_by_hydra(flags, overrides, work):
        sys.exit(code)
    if any(status.state is RunState.FAILED for status in status_of(runs)):
        sys.exit(1)


def _attempt(config: RunConfig, models: LastModel) -> Result | None:
    """Do one run of a grid; record a failure instead of raising it."""
    from neuroal.grid.worker import attempt

    outcome = attempt(config, models)
    if outcome.lost_gpu or not outcome.recorded:
        raise UserError(outcome.reason)
    if outcome.reason:
        print(f"neuroal: {outcome.reason}", file=sys.stderr)
        return Result({"reason": outcome.reason}, lambda: None)
    if outcome.content is None:  # another process does this run
        return None
    return Result(outcome.content, lambda: None)


def _run_by_hydra(flags: argparse.Namespace, overrides: Sequence[str], work: Work) -> int:
    """Let Hydra call `work` for every run; return the exit code.

    In a multirun, a run that fails prints its line and does not stop the others, unless the GPU
    itself has failed, and a table of all runs is printed last. The code is 2 if all failures are
    mistakes of the user, else 1. A single run raises its error.
    """
    sys.argv = [sys.argv[0], *for_hydra(flags), *overrides]
    with Jobs() as jobs:
        multirun = _is_multirun(flags, overrides)
        job = _Job(work, jobs, multirun, as_json=flags.json, level=level_of(flags))
        try:
            with _unchanged_exceptions(), without_notes_of_hydra(flags.json or flags.quiet):
                decorate = hydra.main(str(schema.conf_dir()), "config", version_base="1.3")
                decorate(lambda composed: job.run(composed))()
        except GpuLost:
            print("neuroal: the GPU failed; the further runs are left", file=sys.stderr)
        except WorkerFailed as failure:
            print("neuroal: runs failed; the processes that did them printed why", file=sys.stderr)
            job.codes.extend(failure.args)
        except Exception as error:  # of Hydra or a plugin, for a value that only they read
            if isinstance(error, UserError) or any(error is own for own in job.raised):
                raise
            raise UserError(
                f"Hydra cannot start the run ({message_of(error)}); check the overrides of hydra"
            ) from error
        if not flags.json and (table := jobs.table()):
            print(table, flush=True)
    return min(job.codes, default=0)


@dataclass(eq=False)
class _Job:
    """Does single runs for Hydra, in this process or in others.

    Attributes:
        work: does one run.
        jobs: receives the results of a multirun.
        multirun: whether a failed run does not stop the others.
        as_json: print results as JSON.
        level: least level of the messages to print.
        with_traceback: print the traceback of every failure, not of the first one alone.
        parent: process in which the command was started.
        codes: exit codes of failed runs.
        raised: errors that ended a single run.
    """

    work: Work
    jobs: Jobs
    multirun: bool
    as_json: bool
    level: int
    with_traceback: bool = field(default_factory=full_error)
    parent: int = field(default_factory=os.getpid)
    codes: list[int] = field(default_factory=list)
    raised: list[Exception] = field(default_factory=list)

    def run(self, composed: DictConfig) -> None:
        """Do the run of a composed configuration."""
        failures = len(self.codes)
        if os.getpid() == self.parent:
            self._run(composed)
            if len(self.codes) > failures and "torch" in sys.modules:
                from neuroal.execution.oom import release_memory

                release_memory()  # here, as a traceback keeps the tensors of its frames alive
        else:
            with messages_as_lines(self.level):
                self._run(composed)

    def _run(self, composed: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        overrides = hydra_config.overrides.task
        number = hydra_config.job.num if self.multirun else 0
        try:
            with machine_errors():
                result = self.work(resolve(composed, overrides))
        except Exception as error:
            if not (self.multirun or isinstance(error, UserError)):
                self.raised.append(error)
                raise
            self._report(error, " ".join(overrides))
            self.jobs.add(number, overrides, {"reason": first_line(error)})
            if os.getpid() != self.parent:  # the launcher passes the first error of its workers on
                raise WorkerFailed(self.codes[-1]) from None
            if lost_gpu(str(composed.device)):
                raise GpuLost from None
            return
        if result is not None:
            if self.as_json:
                print_json(result.content)
            else:
                result.show()
            if result.in_table:
                self.jobs.add(number, overrides, result.content)

    def _report(self, error: Exception, overrides: str) -> None:
        """Print the error of one run, and keep its exit code."""
        where = f"{overrides}: " if self.multirun else ""
        if isinstance(error, UserError):
            print_error(error, where, self.with_traceback)
            self.codes.append(2)
            return
        if self.with_traceback or 1 not in self.codes:
            traceback.print_exception(error)
        reason = f"{type(error).__name__}: {first_line(error)}" if str(error) else repr(error)
        print(f"neuroal: {one_line(where + reason)}", file=sys.stderr, flush=True)
        self.codes.append(1)


@contextmanager
def _unchanged_exceptions() -> Iterator[None]:
    """Let Hydra raise exceptions inside the context, instead of printing part of them."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


class GpuLost(BaseException):
    """This process cannot use its GPU any more; Hydra would catch an `Exception`, and go on."""


class WorkerFailed(Exception):
    """A run failed in another process, which has reported it; the argument is the exit code."""
