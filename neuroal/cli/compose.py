"""Compose configurations from the command line and validate them before any work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from neuroal.cli.help import LAUNCHER, search_folder, wrong_name
from neuroal.cli.overrides import parse
from neuroal.cli.targets import check_continuous, check_sweep
from neuroal.config import schema
from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig
from neuroal.config.validation import message_of, resolve
from neuroal.errors import UserError, first_line
from neuroal.files.digest import is_folder
from neuroal.grid.overrides import listed

MAX_CHECKED_VALUES = 1000
"""Maximum number of values of a sweep that are validated before the first run."""
MAX_RUNS = 100_000
"""Maximum number of runs of a sweep."""
GRID = "hydra_plugins.neuroal_grid.sweeper.GridSweeper"
"""Sweeper of a grid; a configuration with another sweeper is not a grid."""


def with_experiment(overrides: Sequence[str]) -> list[str]:
    """Return `overrides` with the plus of ``+experiment=NAME`` and ``++experiment=NAME`` removed.

    Hydra rejects the plus for a group of the defaults list.
    """
    return [re.sub(r"^\+{1,2}(?=experiment=)", "", override) for override in overrides]


def build_methods(config: RunConfig) -> None:
    """Instantiate pruner, top-up and refinement, which validate their parameters."""
    for group in ("pruner", "topup", "refine"):
        build(group, getattr(config, group))


def composed(overrides: Sequence[str]) -> RunConfig:
    """Return the configuration that ``neuroal OVERRIDES`` runs; for scripts.

    Raises:
        UserError: an invalid override.
    """
    return check(with_experiment(overrides), multirun=False)[0][0]


def hydra_session() -> AbstractContextManager[None]:
    """Return a context in which Hydra composes from the folder ``conf``."""
    schema.register()
    GlobalHydra.instance().clear()
    return initialize_config_dir(str(schema.conf_dir()), version_base="1.3")


def check(
    overrides: Sequence[str],
    config_dir: str | None = None,
    multirun: bool = True,
    config_name: str | None = None,
) -> tuple[list[RunConfig], bool]:
    """Compose a configuration for every value of every override, to find typos before any work.

    Args:
        overrides: as on the command line.
        config_dir: further folder of options; None: none.
        multirun: accept several values per override.
        config_name: name of the primary config file; None: ``config``.

    Returns:
        The configuration with the first value of every override, then one for each further value;
        and whether they declare a grid.
    """
    if config_dir is not None and not is_folder(config_dir):
        raise UserError(f"--config-dir={config_dir}: no such folder")
    with hydra_session():
        parsed = parse(overrides, multirun)
        sweeps = [o for o in parsed if o.is_sweep_override()]
        _check_count(sweeps)
        paths = [o for o in parsed if o.get_key_element() == "hydra.searchpath"]
        own = [f"file://{Path(config_dir).absolute()}"] if config_dir else []
        search = [*own, *_search_path(paths)]
        swept = list(_choices([o for o in parsed if o not in paths]))
        runs = [
            compose_run(lines, config_name or "config", search, number)
            for number, (_, lines) in enumerate(swept)
        ]
    configs, is_grid = [config for config, _ in runs], runs[0][1]
    if sweeps and not is_grid:
        keys = list(dict.fromkeys(o.get_key_element().lstrip("+~") for o in sweeps))
        indices = {index for index, _ in swept[1:]}
        varied = [[c for c, (i, _) in zip(configs, swept, strict=True) if i == n] for n in indices]
        check_sweep(configs[0], varied, keys)
        if not all(o.is_discrete_sweep() for o in sweeps):
            check_continuous(overrides, configs[0])
    return configs, is_grid


def _check_count(sweeps: Sequence[Override]) -> None:
    """Raise `UserError` if `sweeps` ask for more than `MAX_RUNS` runs."""
    runs = 1
    for override in (o for o in sweeps if o.is_discrete_sweep()):
        runs *= sum(1 for _ in islice(override.sweep_string_iterator(), MAX_RUNS + 1))
        if runs > MAX_RUNS:
            raise UserError(f"{override.input_line}: asks for more than {MAX_RUNS} runs")


def _search_path(overrides: Sequence[Override]) -> Iterator[str]:
    """Yield the entries of ``hydra.searchpath``; raise `UserError` for one that is no folder."""
    for path in (str(path) for override in overrides for path in listed(override.value())):
        folder = search_folder(path)
        if folder is None or not is_folder(str(folder)):
            raise UserError(
                f"hydra.searchpath: no folder '{path}'; write file://FOLDER or pkg://PACKAGE"
            )
        yield path


def _choices(parsed: Sequence[Override]) -> Iterator[tuple[int, list[str]]]:
    """Yield overrides without sweeps: all first values, then each further value in turn.

    The number before them is that of the override with a further value, or -1.
    """
    values: list[list[str]] = []
    for override in parsed:
        line = override.input_line or ""
        if override.is_sweep_override() and override.is_discrete_sweep():
            key = line.partition("=")[0]
            swept = islice(override.sweep_string_iterator(), MAX_CHECKED_VALUES)
            values.append([f"{key}={text}" for text in swept])
        elif not override.is_sweep_override():
            values.append([line])
    first = [texts[0] for texts in values if texts]
    yield -1, first
    for index, texts in enumerate(values):
        for text in texts[1:]:
            yield index, [*first[:index], text, *first[index + 1 :]]


def compose_run(
    overrides: Sequence[str],
    name: str = "config",
    search: Sequence[str] = (),
    number: int = 0,
) -> tuple[RunConfig, bool]:
    """Compose config file `name`; return the configuration and whether it declares a grid.

    The folders `search` add options, as in ``hydra.searchpath``. `number` is ``hydra:job.num``.
    """
    quoted = ",".join('"{}"'.format(path.replace('"', '\\"')) for path in search)
    lines = [*overrides, *([f"hydra.searchpath=[{quoted}]"] if search else [])]
    with composing(overrides, search):
        composition = compose(name, lines, return_hydra_config=True)
        sweeper = composition.hydra.sweeper
        is_grid = isinstance(sweeper, DictConfig) and sweeper.get("_target_") == GRID
        with _hydra_values(composition, number):
            return resolve(composition, overrides), is_grid


@contextmanager
def composing(overrides: Sequence[str], search: Sequence[str] = ()) -> Iterator[None]:
    """Raise errors of Hydra and OmegaConf inside the context as `UserError`.

    They are of many types, and all due to an override or to a file that it names.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_wrong_override(overrides, search) or _reason(overrides, error)) from error


def _reason(overrides: Sequence[str], error: Exception) -> str:
    """Return the message of an error of Hydra, or of an override of Hydra's own configuration."""
    if isinstance(error, HydraException | OmegaConfBaseException | OSError):
        return message_of(error)
    own = [text for text in overrides if text.lstrip("+~").startswith("hydra")]
    what = f"cannot be composed ({type(error).__name__}: {first_line(error)})"
    return f"{' '.join(own or overrides)}: {what}; change or remove this override"


@contextmanager
def _hydra_values(composition: DictConfig, number: int) -> Iterator[None]:
    """Resolve ``${hydra:…}`` inside the context as in job `number` of a sweep."""
    with read_write(composition.hydra), open_dict(composition.hydra):
        composition.hydra.job.num, composition.hydra.job.id = number, str(number)
    hydra_config = HydraConfig.instance()
    previous = hydra_config.cfg
    hydra_config.set_config(composition)
    try:
        yield
    finally:
        hydra_config.cfg = previous


def _wrong_override(overrides: Sequence[str], search: Sequence[str]) -> str | None:
    """Return the message for the first override with an unknown group, option or key."""
    folders = list(filter(None, map(search_folder, search)))
    for override in overrides:
        key, _, value = override.partition("=")
        is_own = not key.startswith("hydra") or key == LAUNCHER
        if key[0] not in "+~" and is_own:
            message = wrong_name(key.partition("@")[0], value, folders)
            if message:
                return message
    return None
