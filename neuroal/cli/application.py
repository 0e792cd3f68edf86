"""Shared by all console scripts: exit codes, Hydra's flags, and starting one run or many."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from neuroal import __version__
from neuroal.cli.compose import build_methods, check, with_experiment
from neuroal.cli.declared import planned
from neuroal.cli.signals import exiting_on_signals
from neuroal.config import schema
from neuroal.config.locations import check_writable
from neuroal.config.schema import RunConfig
from neuroal.config.validation import message_of, resolve
from neuroal.errors import FULL_ERROR, UserError, first_line, full_error, nearest, one_line
from neuroal.files.machine import machine_errors
from neuroal.grid.planning import PlannedRun
from neuroal.grid.status import RunState, status_of

SWITCH = {"action": "store_true"}
FLAGS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--multirun", "-m"): SWITCH,
    ("--run", "-r"): SWITCH,
    ("--resolve",): SWITCH,
    ("--hydra-help",): SWITCH,
    ("--shell-completion", "-sc"): SWITCH,
    ("--help", "-h"): SWITCH,
    ("--version",): SWITCH,
    ("--package", "-p"): {},
    ("--config-dir", "-cd"): {},
    ("--config-name", "-cn"): {},
    ("--cfg", "-c"): {"choices": ("job", "hydra", "all")},
    ("--info", "-i"): {
        "nargs": "?",
        "const": "all",
        "choices": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    },
}
"""Names of a flag → its arguments of `argparse`."""


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises `UserError` instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def exit_with(work: Callable[[], int | None]) -> NoReturn:
    """Call `work` and exit with its code, 2 after a mistake of the user, or 130 if interrupted."""
    with_traceback = full_error()  # before Hydra is started, which sets the variable
    try:
        with exiting_on_signals(), messages_as_lines(), machine_errors():
            _check_current_folder()
            _check_encoding(sys.argv)
            code = work() or 0
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _print_error(error, with_traceback=with_traceback)
        sys.exit(2)
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


class _Lines(logging.Handler):
    """Prints log messages as the lines ``neuroal: MESSAGE`` on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"neuroal: {one_line(record.getMessage())}", file=sys.stderr)


@contextmanager
def messages_as_lines() -> Iterator[None]:
    """Print the log messages and warnings of this package as lines on stderr, inside the context.

    Hydra's own handler would print them on stdout, with a time stamp.
    """
    logger, handler, show_others = logging.getLogger("neuroal"), _Lines(), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:
            logger.warning("%s", message)
        else:
            show_others(message, category, *where, **more)

    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate, warnings.showwarning = False, show
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate, warnings.showwarning = before[1], show_others


def _print_error(error: Exception, where: str = "", with_traceback: bool = False) -> None:
    if with_traceback and error.__cause__ is not None:
        traceback.print_exception(error)
    text = str(error) if isinstance(error, UserError) else message_of(error)
    print(f"neuroal: {one_line(where + text)}", file=sys.stderr)


def start(
    work: Callable[[RunConfig], object],
    help_text: Callable[[], str],
    check_overrides: Callable[[Sequence[str]], None] = lambda overrides: None,
) -> None:
    """Call `work` for every run requested on the command line, or print help or version.

    `check_overrides` raises `UserError` for overrides that the command does not accept.
    """
    flags, overrides = parse_flags(sys.argv[1:])
    check_overrides(overrides)
    if flags.help:
        print(help_text())
    elif flags.version:
        print(f"neuroal {__version__}")
    else:
        _run(flags, with_experiment(overrides), work)


def parse_flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return Hydra's flags and the overrides; they may appear in any order."""
    parser = ArgumentParser("neuroal", add_help=False, allow_abbrev=False)
    for names, options in FLAGS.items():
        parser.add_argument(*names, **options)
    parser.add_argument("overrides", nargs="*")
    flags, rest = parser.parse_known_intermixed_args(arguments)
    if rest:
        raise UserError(f"{rest[0]}: no such flag{nearest(rest[0], chain(*FLAGS))}")
    return flags, flags.overrides


def _run(
    flags: argparse.Namespace, overrides: Sequence[str], work: Callable[[RunConfig], object]
) -> None:
    """Validate all configurations, then let Hydra start one run or many."""
    if flags.cfg and flags.multirun:
        raise UserError("--cfg: prints the configuration of one run; leave out -m")
    schema.register()
    is_grid, runs = False, list[PlannedRun]()
    if not (flags.hydra_help or flags.info or flags.shell_completion):
        multirun = flags.multirun or "hydra.mode=MULTIRUN" in overrides
        configs, is_grid = check(overrides, flags.config_dir, multirun, flags.config_name)
        for config in () if flags.cfg else configs:
            check_writable("out", config.out)
            build_methods(config)
    if is_grid and not flags.cfg:
        _, runs = planned(overrides)
        if not flags.multirun:
            raise UserError("experiment: is a grid of runs; add -m, or use neuroal-grid run")
        work = _attempt
    if code := _run_by_hydra(flags, overrides, work):
        sys.exit(code)
    if any(status.state is RunState.FAILED for status in status_of(runs)):
        sys.exit(1)


def _attempt(config: RunConfig) -> None:
    """Do one run of a grid; record a failure instead of raising it."""
    from neuroal.grid.worker import attempt

    outcome = attempt(config)
    if not outcome.recorded:
        raise UserError(outcome.reason)
    if reason := outcome.reason:
        print(f"neuroal: {reason}", file=sys.stderr)


def _run_by_hydra(
    flags: argparse.Namespace, overrides: Sequence[str], work: Callable[[RunConfig], object]
) -> int:
    """Let Hydra call `work` for every run; return the exit code.

    In a multirun, a run that fails prints its line and does not stop the others: 2 if all failures
    are mistakes of the user, else 1. A single run raises its error.
    """
    multirun = flags.multirun or "hydra.mode=MULTIRUN" in overrides
    every_traceback = full_error()
    parent, codes, raised = os.getpid(), list[int](), list[Exception]()

    def task(composed: DictConfig) -> None:
        task_overrides = HydraConfig.get().overrides.task
        try:
            with machine_errors():
                work(resolve(composed, task_overrides))
        except Exception as error:
            if not (multirun or isinstance(error, UserError)):
                raised.append(error)
                raise
            where = f"{' '.join(task_overrides)}: " if multirun else ""
            codes.append(_report(error, where, every_traceback, is_first=1 not in codes))
            if os.getpid() != parent:  # the launcher passes the first error of its workers on
                raise WorkerFailed(codes[-1]) from None

    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars of other packages in a log
    sys.argv = [sys.argv[0], *_for_hydra(flags), *overrides]
    try:
        with _unchanged_exceptions():
            hydra.main(str(schema.conf_dir()), "config", version_base="1.3")(task)()
    except WorkerFailed as failure:
        print("neuroal: runs failed; the processes that did them printed why", file=sys.stderr)
        codes.extend(failure.args)
    except Exception as error:  # of Hydra or a plugin, for a value that only they read
        if isinstance(error, UserError) or any(error is own for own in raised):
            raise
        raise UserError(
            f"Hydra cannot start the run ({message_of(error)}); check the overrides of hydra"
        ) from error
    return min(codes, default=0)


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


class WorkerFailed(Exception):
    """A run failed in another process, which has reported it; the argument is the exit code."""


def _report(error: Exception, where: str, every_traceback: bool, *, is_first: bool) -> int:
    """Print the error of one run; return its exit code."""
    if isinstance(error, UserError):
        _print_error(error, where, every_traceback)
        return 2
    if every_traceback or is_first:
        traceback.print_exception(error)
    reason = f"{type(error).__name__}: {first_line(error)}" if str(error) else repr(error)
    print(f"neuroal: {one_line(where + reason)}", file=sys.stderr, flush=True)
    return 1


def _for_hydra(flags: argparse.Namespace) -> Iterator[str]:
    for name, *_ in FLAGS:
        value = getattr(flags, name.lstrip("-").replace("-", "_"))
        if value:
            yield name if value is True else f"{name}={value}"
