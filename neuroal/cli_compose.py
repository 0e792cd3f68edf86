"""From what stands on the command line to configurations, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import RunConfig, conf_dir, register
from neuroal.errors import UserError
from neuroal.methods import build
from neuroal.usage import bare_word, search_folder, wrong_name
from neuroal.validation import explain, resolve

SWEPT_AT_MOST = 1000
"""Values of one sweep that are checked before the first run."""


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
    """Overrides as Hydra understands them; raises `UserError` for what it does not."""
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
    """The configuration that `overrides` (without sweeps) make of config file `name`.

    Args:
        name: of the config file.
        overrides: as on the command line.
        search: further places of options, as in ``hydra.searchpath``.
    """
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
        raise UserError(gist(error)) from error
    return resolve(found)


def gist(error: BaseException) -> str:
    """The first line of what Hydra says, with the nearest key where it names a wrong one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
