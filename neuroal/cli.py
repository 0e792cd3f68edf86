"""The command line: a Hydra application whose mistakes end in one clear line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from neuroal.cli_compose import build_methods, check, composed, gist
from neuroal.cli_grid import multirun_grid, planned
from neuroal.config import RunConfig, conf_dir, register
from neuroal.errors import UserError, nearest
from neuroal.usage import PRUNING, evaluation_help, help_text
from neuroal.validation import resolve

SWITCHES = (
    ("--multirun", "-m"),
    ("--run", "-r"),
    ("--resolve",),
    ("--hydra-help",),
    ("--shell-completion", "-sc"),
    ("--help", "-h"),
    ("--version",),
)
SETTINGS = (
    ("--package", "-p"),
    ("--config-dir", "-cd"),
    ("--config-name", "-cn"),
)
CFG = ("--cfg", "-c")
INFO = ("--info", "-i")


__all__ = [
    "check",
    "composed",
    "main",
    "main_data",
    "main_eval",
    "main_grid",
    "main_tables",
    "register",
]


def main() -> NoReturn:
    """Console script ``neuroal``. Exit code 2: a mistake of the user's; 130: interrupted."""
    _end(lambda: _start(_prune, help_text))


def main_eval() -> NoReturn:
    """Console script ``neuroal-eval``: measure a model as it is."""
    _end(lambda: _start(_evaluate, evaluation_help, PRUNING))


def main_grid() -> NoReturn:
    """Console script ``neuroal-grid``: plan, follow and run a grid."""
    from neuroal.grid.command import grid_command

    _end(lambda: grid_command(sys.argv[1:], planned))


def main_tables() -> NoReturn:
    """Console script ``neuroal-tables``: tables and a report from records."""
    from neuroal.cli_tables import tables_command

    _end(lambda: tables_command(sys.argv[1:]))


def main_data() -> NoReturn:
    """Console script ``neuroal-data``: fetch data sets, or say where they are."""
    from neuroal.data.command import data_command

    _end(lambda: data_command(sys.argv[1:]))


def _prune(config: RunConfig) -> None:
    from neuroal.records.outcome import outcome_line
    from neuroal.run import run  # late: it takes seconds to import

    record, path = run(config)
    print(outcome_line(config, record, path), flush=True)


def _evaluate(config: RunConfig) -> None:
    from neuroal.standalone import evaluate_model

    evaluate_model(config)


def _end(work: Callable[[], int | None]) -> NoReturn:
    """Exit with what `work` returns; mistakes end in one line."""
    sys.path.append(os.getcwd())  # where a user's own methods may be
    try:
        code = work() or 0
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _say(error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("neuroal: interrupted; finished records stand", file=sys.stderr)
        sys.exit(130)
    sys.exit(code)


def _say(error: Exception, where: str = "") -> None:
    text = str(error) if isinstance(error, UserError) else gist(error)
    print(f"neuroal: {where}{text}", file=sys.stderr)


def _start(
    work: Callable[[RunConfig], None], text: Callable[[], str], refused: Sequence[str] = ()
) -> None:
    """Let `work` do what the command line says, or print what was asked for."""
    flags, overrides = _arguments(sys.argv[1:])
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in refused:
            raise UserError(f"{override}: neuroal-eval prunes nothing; leave it out")
    if flags.help:
        print(text())
    elif flags.version:
        print(f"neuroal {version('neuroal')}")
    else:
        _run(flags, overrides, work)


def _arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's flags and the overrides, in any order."""
    parser = argparse.ArgumentParser("neuroal", add_help=False, exit_on_error=False)
    parser.allow_abbrev = False
    for names in SWITCHES:
        parser.add_argument(*names, action="store_true")
    for names in SETTINGS:
        parser.add_argument(*names)
    parser.add_argument(*CFG, choices=("job", "hydra", "all"))
    parser.add_argument(*INFO, nargs="?", const="all")
    parser.add_argument("overrides", nargs="*")
    try:
        flags, rest = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if rest:
        known = [name for names in (*SWITCHES, *SETTINGS, CFG, INFO) for name in names]
        raise UserError(f"{rest[0]}: no such flag{nearest(rest[0], known)}")
    return flags, flags.overrides


def _run(
    flags: argparse.Namespace, overrides: Sequence[str], work: Callable[[RunConfig], None]
) -> None:
    """Check everything that can be checked, then let Hydra do one run or many."""
    register()
    work, failed = multirun_grid(overrides, flags.multirun or bool(flags.cfg), work)
    if not (flags.hydra_help or flags.info or flags.shell_completion):
        configs = check(overrides, flags.config_dir, flags.multirun, flags.config_name)
        for config in () if flags.cfg else configs:
            build_methods(config)
    here, failures = os.getpid(), 0

    def task(composed: DictConfig) -> None:
        nonlocal failures
        try:
            work(resolve(composed))
        except UserError as error:
            if os.getpid() != here:
                raise  # in a process of the launcher's own, which carries it home
            _say(error, f"{' '.join(HydraConfig.get().overrides.task)}: " if flags.multirun else "")
            failures += 1

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come out as they are
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no bars of other packages in a log
    sys.argv = [sys.argv[0], *_for_hydra(flags), *overrides]
    hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(task)()
    if failures:
        sys.exit(2)
    if failed():
        sys.exit(1)


def _for_hydra(flags: argparse.Namespace) -> Iterator[str]:
    for name, *_ in (*SWITCHES, *SETTINGS, CFG, INFO):
        value = getattr(flags, name.lstrip("-").replace("-", "_"))
        if value:
            yield name if value is True else f"{name}={value}"
