"""Groups, options and keys of the command line, the text of ``--help``, and hints for typos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, Field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuroal import __version__
from neuroal.config import schema
from neuroal.errors import nearest
from neuroal.evaluation.task_table import TASKS

GROUPS = ("model", "pruner", "topup", "refine", "sparsity", "calibration", "task", "logger")
"""Groups in the order of a run; ``--help`` lists other groups after them."""
ANY_OTHER = {
    "model": "model=hf model.path={value}",
    "sparsity": "sparsity.ratio={value}",
    "calibration": "calibration=text calibration.path={value}",
}
"""Group → overrides for a value that is not an option of the group."""
LAUNCHER = "hydra/launcher"
EXTRA_OF_LAUNCHER = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm"}
"""Launcher of Hydra → extra that installs it."""

HELP = """\
neuroal {version}: prune language models without re-training (NeuroAL, arXiv 2411.07066)

usage: neuroal [GROUP=OPTION ...] [KEY=VALUE ...]     do one run
       neuroal -m GROUP=A,B KEY=1,2 ...               do a run for every combination of values

examples:
  neuroal model=zoo/llama pruner=wanda topup=neuroal sparsity=s70 seed=0
  neuroal -m pruner=magnitude,wanda topup=uniform,neuroal sparsity=s60,s70,s80
  neuroal model=hf model.path=FOLDER sparsity.ratio=0.65 save.model=OUT
  neuroal pruner=sparsegpt pruner.damping=0.1 --cfg job

GROUPS (* = default)

{groups}

KEYS (=DEFAULT)

{keys}

  Each option of pruner, topup and refine has its own parameters. To list them, run
  neuroal GROUP=OPTION --cfg job --package GROUP, or see GROUP/OPTION.yaml in
  {conf}

FLAGS

  -m, --multirun         do a run for every combination of comma-separated values, or a grid
  -c, --cfg job          print the composed configuration and exit (-p GROUP: only that group)
  -cd, --config-dir DIR  add the options of your own files DIR/GROUP/OPTION.yaml
  -h, --help             print this help and exit
  -n, --dry-run          print what a run would do, read, write and need, and do nothing
  -q, --quiet            print no progress and no notes, only warnings, errors and results
  -v, --verbose          print begin, end and seconds of every stage
  --json                 print results as JSON, one line per run
  --version              print the version and exit
  --hydra-help           print Hydra's help: launchers, shell completion and more
"""

PRUNING = ("pruner", "topup", "refine", "sparsity", "rules", "calibration", "save")
"""Groups and keys that configure pruning."""
EVALUATION_HELP = """\
neuroal-eval {version}: evaluate a model without pruning it

usage: neuroal-eval [GROUP=OPTION ...] [KEY=VALUE ...]     evaluate one model
       neuroal-eval -m model=A,B ...                       evaluate several models

examples:
  neuroal-eval model=hf model.path=FOLDER task=lm data.root=DATA
  neuroal-eval model=hf model.path=HUB_NAME model.revision=COMMIT task=paper
  neuroal-eval model=zoo/llama task.names=[arc_easy] task.limit=100 data.root=DATA

{groups}

Keys: model.*, task.*, data.*, device, offload, progress and out, and flags -q, -v and --json, as in
neuroal --help. Results are printed and cached in OUT/measured; runs read their dense results from
the same cache.
"""


def evaluation_help() -> str:
    """Return the text of ``neuroal-eval --help``."""
    groups = options_by_group()
    text = "\n\n".join(_describe(group, groups[group]) for group in ("model", "task"))
    return EVALUATION_HELP.format(version=__version__, groups=text)


def options_by_group(folders: Sequence[Path] = ()) -> dict[str, dict[str, str]]:
    """Return group → option → first comment line of its YAML, in ``conf`` and `folders`."""
    groups: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for root in (schema.conf_dir(), *folders):
        for path in sorted(root.rglob("*.yaml")):
            group, *option = path.relative_to(root).with_suffix("").parts
            if option and group != "hydra":
                text = path.read_text("utf-8", "replace").removeprefix("# @package _global_\n")
                first = text.partition("\n")[0]
                comment = first.lstrip("# ").rstrip() if first.startswith("#") else ""
                groups.setdefault(group, {})["/".join(option)] = comment
    return {group: options for group, options in groups.items() if options}


def help_text() -> str:
    """Return the text of ``neuroal --help``."""
    keys = {_with_default(key, leaf): leaf.metadata["help"] for key, leaf in schema.leaves()}
    return HELP.format(
        version=__version__,
        groups="\n\n".join(_describe(*group) for group in options_by_group().items()),
        keys="\n".join(_columns(keys)),
        conf=schema.conf_dir(),
    )


def _describe(group: str, options: dict[str, str]) -> str:
    entries = OmegaConf.load(schema.conf_dir() / "config.yaml").defaults
    defaults = {
        k: v for entry in entries if isinstance(entry, DictConfig) for k, v in entry.items()
    }
    marked = {
        f"{'*' if str(defaults.get(group)) == option else ' '}{option}": comment
        for option, comment in options.items()
    }
    head = f"{group}=" if group in defaults else f"+{group}="
    return "\n".join([head, *_columns(marked, indent=1)])


def _with_default(key: str, leaf: Field[Any]) -> str:
    if leaf.default == "???":
        return key
    default = leaf.default if leaf.default is not MISSING else []
    return f"{key}={'null' if default is None else str(default).lower()}"


def _columns(rows: dict[str, str], indent: int = 2) -> list[str]:
    width = max(map(len, rows))
    return [f"{' ' * indent}{name:<{width}}  {text}".rstrip() for name, text in rows.items()]


def wrong_name(key: str, value: str, folders: Sequence[Path] = ()) -> str | None:
    """Return the message for an unknown group, option or key, or None if ``key=value`` has none."""
    groups = options_by_group(folders)
    if key == LAUNCHER and (extra := EXTRA_OF_LAUNCHER.get(value)):
        return f"{key}={value}: needs the extra {extra}; pip install 'neuroal[{extra}]'"
    if key == LAUNCHER:
        options = ("basic", *EXTRA_OF_LAUNCHER)
        return (
            f"{key}={value}: no such launcher; there are {', '.join(options)}, and those of "
            f"plugins of Hydra that are installed{nearest(value, options)}"
        )
    if key in groups and value not in groups[key]:
        other = _any_other(key, value)
        return (
            f"{key}={value}: no such option; there are {', '.join(groups[key])}"
            f"{nearest(value, groups[key])}" + (f"; any other: {other}" if other else "")
        )
    names = [*groups, *(name for name, _ in schema.leaves())]
    if key.partition(".")[0] not in {name.partition(".")[0] for name in names}:
        return f"{key}: no such group or key{nearest(key, names)}"
    return None


def _any_other(group: str, value: str) -> str:
    """Return the overrides for a `value` that is not an option of `group`, or an empty string."""
    if group == "task" and value in TASKS:
        return f"task.names=[{value}]"
    if group == "sparsity" and (number := re.fullmatch(r"s?(\d+(?:\.\d+)?)%?", value)):
        ratio = float(number[1])
        value = f"{ratio / 100 if ratio >= 1 else ratio:g}"
    return ANY_OTHER.get(group, "").format(value=value)


def bare_word(word: str) -> str:
    """Return the message for an override without ``=``."""
    overrides = [f"{g}={word}" for g, options in options_by_group().items() if word in options]
    hint = f" (did you mean '{overrides[0]}'?)" if overrides else ""
    return f"'{word}': write GROUP=OPTION or KEY=VALUE{hint}"


def search_folder(path: str) -> Path | None:
    """Return the folder of an entry of ``hydra.searchpath``; None if its package is not found."""
    kind, _, rest = path.rpartition("://")
    if kind == "pkg":
        package, _, subfolder = rest.partition("/")
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):
            return None
        locations = spec.submodule_search_locations if spec else None
        return Path(locations[0], subfolder) if locations else None
    return Path(rest)
