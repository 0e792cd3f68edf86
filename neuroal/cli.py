"""The command line: a Hydra application whose mistakes end in one clear line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import RunConfig, build, conf_dir, explain, register, resolve
from neuroal.errors import UserError, nearest
from neuroal.usage import PRUNING, bare_word, evaluation_help, help_text, search_folder, wrong_name

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
SWEPT_AT_MOST = 1000
"""Values of one sweep that are checked before the first run."""


def main() -> NoReturn:
    """Console script ``neuroal``. Exit code 2: a mistake of the user's; 130: interrupted."""
    _end(lambda: _start(_prune, help_text))


def main_eval() -> NoReturn:
    """Console script ``neuroal-eval``: measure a model as it is."""
    _end(lambda: _start(_evaluate, evaluation_help, PRUNING))


def main_grid() -> NoReturn:
    """Console script ``neuroal-grid``: plan, follow and run a grid."""
    from neuroal.cli_grid import planned
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
    from neuroal.run import run  # late: it takes seconds to import

    run(config)


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
    text = str(error) if isinstance(error, UserError) else _gist(error)
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
    from neuroal.cli_grid import multirun_grid  # late: it imports this module

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


def build_methods(config: RunConfig) -> None:
    """Construct pruner, top-up and refinement, which check their own parameters."""
    for group in ("pruner", "topup", "refine"):
        build(group, getattr(config, group))


def composed(overrides: Sequence[str]) -> RunConfig:
    """The configuration that ``neuroal OVERRIDES`` runs, for scripts."""
    register()
    return check(overrides, multirun=False)[0]


def check(
    overrides: Sequence[str],
    config_dir: str | None = None,
    multirun: bool = True,
    config_name: str | None = None,
) -> list[RunConfig]:
    """Compose each choice of every override, so that a typo ends before any work.

    Returns:
        The configurations: of the first choices together, then of every other on its own.

    Raises:
        UserError: one line with the nearest valid name.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir={config_dir}: no such folder")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        parsed = parse(overrides)
        multirun = multirun or "hydra.mode=MULTIRUN" in overrides
        sweeps = [o for o in parsed if o.is_sweep_override()]
        if sweeps and not multirun:
            raise UserError(f"{sweeps[0].input_line}: several values: add -m for a run of each")
        paths = [o for o in parsed if o.get_key_element() == "hydra.searchpath"]
        own = [f"file://{Path(config_dir).absolute()}"] if config_dir else []
        search = [*own, *(str(path) for o in paths for path in _listed(o.value()))]
        name = config_name or "config"
        choices = _choices([o for o in parsed if o not in paths])
        return [compose_run(name, choice, search) for choice in choices]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(bare_word(text))
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise UserError(f"'{text}': {str(error).splitlines()[0]}") from error
        override.config_loader = parser.config_loader
        parsed.append(override)
    return parsed


def _choices(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides without sweeps: the first values of all, then every other value on its own."""
    values: list[list[str]] = []
    for override in parsed:
        line = override.input_line or ""
        if override.is_sweep_override() and override.is_discrete_sweep():
            key = line.partition("=")[0]
            swept = islice(override.sweep_string_iterator(), SWEPT_AT_MOST)
            values.append([f"{key}={text}" for text in swept])
        elif not override.is_sweep_override():
            values.append([line])
    first = [texts[0] for texts in values if texts]
    yield first
    for index, texts in enumerate(values):
        for text in texts[1:]:
            yield [*first[:index], text, *first[index + 1 :]]


def compose_run(name: str, overrides: Sequence[str], search: Sequence[str]) -> RunConfig:
    quoted = ",".join('"{}"'.format(path.replace('"', '\\"')) for path in search)
    try:
        found = compose(name, [*overrides, *([f"hydra.searchpath=[{quoted}]"] if search else [])])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        folders = [folder for folder in map(search_folder, search) if folder is not None]
        for override in overrides:
            key, _, value = override.partition("=")
            known = key[0] in "+~" or key.startswith("hydra")
            wrong = None if known else wrong_name(key.partition("@")[0], value, folders)
            if wrong:
                raise UserError(wrong) from error
        raise UserError(_gist(error)) from error
    return resolve(found)


def _gist(error: BaseException) -> str:
    """The first line of what Hydra says, with the nearest key where it names a wrong one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
