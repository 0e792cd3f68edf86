"""The command line: a Hydra application whose mistakes end in one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from typing import NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import RunConfig, conf_dir, explain, register, resolve
from neuroal.errors import UserError, nearest

USAGE = """\
neuroal {version}: prune language models without re-training (NeuroAL, arXiv 2411.07066)

usage: neuroal [GROUP=OPTION ...] [KEY=VALUE ...]     one run
       neuroal -m GROUP=A,B KEY=1,2 ...               every combination
       neuroal --cfg job [...]                        print the composed configuration

examples:
  neuroal model=zoo/llama pruner=wanda topup=neuroal sparsity=s70
  neuroal -m pruner=magnitude,wanda topup=uniform,neuroal sparsity=s60,s70,s80
  neuroal model=hf model.path=FOLDER sparsity.ratio=0.65 save.model=OUT
"""
FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i"}
FLAGS_FOR_HYDRA = {
    "--multirun",
    "-m",
    "--resolve",
    "--run",
    "-r",
    "--hydra-help",
    "--shell-completion",
}


def main() -> NoReturn:
    """Console script ``neuroal``. Exit code 2: a mistake of the user's; 130: interrupted."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(help_text())
        sys.exit(0)
    if "--version" in arguments:
        print(f"neuroal {version('neuroal')}")
        sys.exit(0)
    _guarded(lambda: _run(arguments))
    sys.exit(0)


def _guarded(action: Callable[[], None]) -> None:
    """Run `action`; turn the user's mistakes into one line and exit code 2."""
    try:
        action()
    except UserError as error:
        print(f"neuroal: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("neuroal: interrupted; finished records stand", file=sys.stderr)
        sys.exit(130)


def _run(arguments: Sequence[str]) -> None:
    register()
    overrides, config_dirs = _overrides(arguments)
    if not any(
        flag in arguments for flag in ("--hydra-help", "--info", "-i", "--shell-completion")
    ):
        check(overrides, config_dirs)
    # Hydra turns every exception into an exit of its own, so the task keeps its own outcome.
    failed: list[BaseException] = []

    def task(composed: DictConfig) -> None:
        from neuroal.run import run  # late: torch takes seconds to import

        try:
            run(resolve(composed))
        except (UserError, KeyboardInterrupt) as error:
            failed.append(error)
            raise SystemExit(2) from error

    application = hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
    try:
        application(task)()
    except SystemExit:
        if failed:
            raise failed[0] from None
        raise


def _overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides among `arguments`, and the folders given with ``--config-dir``."""
    overrides, folders = [], []
    rest = iter(arguments)
    for argument in rest:
        flag, _, value = argument.partition("=")
        if flag in FLAGS_WITH_VALUE:
            value = value or next(rest, "")
            if flag in ("--config-dir", "-cd"):
                folders.append(value)
        elif argument.startswith("-"):
            if flag not in FLAGS_FOR_HYDRA:
                known = {*FLAGS_FOR_HYDRA, *FLAGS_WITH_VALUE, "--help", "--version"}
                raise UserError(f"{flag}: no such flag{nearest(flag, known)}")
        else:
            overrides.append(argument)
    return overrides, folders


def check(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> None:
    """Compose each choice of every override and validate it, so that a typo ends before any work.

    Raises:
        UserError: one line with the nearest valid name.
    """
    parsed = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"'{text}': write GROUP=OPTION or KEY=VALUE")
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except HydraException as error:
            raise UserError(f"'{text}': {str(error).splitlines()[0]}") from error
    search = (
        [f"hydra.searchpath=[{','.join('file://' + d for d in config_dirs)}]"]
        if config_dirs
        else []
    )
    for choice in _choices(parsed):
        _check_names(choice, config_dirs)
        texts = [_text(override) for override in choice]
        resolve(_compose([*texts, *search]))


def composed(overrides: Sequence[str]) -> RunConfig:
    """The configuration that ``neuroal OVERRIDES`` runs, for scripts."""
    register()
    check(overrides)
    return resolve(_compose(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("config", list(overrides))
    except HydraException as error:
        raise UserError(_gist(error)) from error
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error


def _choices(parsed: Sequence[Override]) -> Iterator[list[Override]]:
    """Overrides without sweeps: the first values of all, then every other value on its own."""
    values: list[list[Override]] = []
    for override in parsed:
        if override.is_sweep_override():
            texts = islice(override.sweep_string_iterator(), 1000)
            parser = OverridesParser.create()
            prefix = override.input_line.partition("=")[0] if override.input_line else ""
            values.append([parser.parse_override(f"{prefix}={text}") for text in texts])
        else:
            values.append([override])
    first = [options[0] for options in values]
    yield first
    for index, options in enumerate(values):
        for option in options[1:]:
            yield [*first[:index], option, *first[index + 1 :]]


def _text(override: Override) -> str:
    return override.input_line or ""


def _check_names(choice: Sequence[Override], config_dirs: Sequence[str]) -> None:
    """Nearest-name messages for groups and their options, which Hydra's own lack."""
    groups = options_by_group(config_dirs)
    keys = {*groups, *known_keys()}
    for override in choice:
        key = override.get_key_element().lstrip("+~")
        if key.startswith("hydra"):
            continue
        if key in groups:
            value = override.input_line.partition("=")[2] if override.input_line else ""
            if value not in groups[key]:
                raise UserError(
                    f"{key}={value}: no such option; there are {', '.join(sorted(groups[key]))}"
                    f"{nearest(value, groups[key])}"
                )
        elif override.is_add() or override.is_delete():
            continue
        elif key.partition(".")[0] not in {name.partition(".")[0] for name in keys}:
            raise UserError(f"{key}: no such group or key{nearest(key, keys)}")


def _gist(error: BaseException) -> str:
    """The first line of what Hydra says, with the nearest key where it names a wrong one."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return explain(cause) if isinstance(cause, OmegaConfBaseException) else lines[0]


def known_keys() -> list[str]:
    """Dotted names of the keys outside method groups."""
    flat: list[str] = []

    def walk(prefix: str, node: DictConfig) -> None:
        for name in node:
            value = node._get_node(str(name))
            if isinstance(value, DictConfig) and not value._is_missing() and not value._is_none():
                walk(f"{prefix}{name!s}.", value)
            else:
                flat.append(f"{prefix}{name!s}")

    walk("", OmegaConf.structured(RunConfig))
    return flat


def options_by_group(config_dirs: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Group → option → the line that its YAML begins with."""
    from pathlib import Path

    groups: dict[str, dict[str, str]] = {}
    for root in (conf_dir(), *map(Path, config_dirs)):
        for path in sorted(root.rglob("*.yaml")):
            relative = path.relative_to(root).with_suffix("")
            if len(relative.parts) < 2:
                continue
            first = path.read_text().partition("\n")[0]
            comment = first.lstrip("# ").rstrip() if first.startswith("#") else ""
            group, option = relative.parts[0], "/".join(relative.parts[1:])
            groups.setdefault(group, {})[option] = comment
    return groups


def help_text() -> str:
    """What ``neuroal --help`` prints."""
    lines = [USAGE.format(version=version("neuroal"))]
    groups = options_by_group()
    for group in (
        "model",
        "pruner",
        "topup",
        "refine",
        "sparsity",
        "calibration",
        "task",
        "logger",
    ):
        lines.append(f"{group}=")
        options = groups.get(group, {})
        width = max(map(len, options), default=0)
        lines += [f"  {option:<{width}}  {comment}" for option, comment in options.items()]
        lines.append("")
    lines.append("keys: " + ", ".join(known_keys()))
    return "\n".join(lines)
