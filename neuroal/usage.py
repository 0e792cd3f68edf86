"""What can be said on the command line: groups, options, keys, and the text of ``--help``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from neuroal.config import RunConfig, conf_dir
from neuroal.errors import nearest

GROUPS = ("model", "pruner", "topup", "refine", "sparsity", "calibration", "task", "logger")
"""In the order of a run; a group that is not among them comes last."""
ANY_OTHER = {
    "model": "model=hf model.path={value}",
    "sparsity": "sparsity.ratio={value}",
    "calibration": "calibration=text calibration.path={value}",
}
"""How to say what is no option of a group."""

HELP = """\
neuroal {version}: prune language models without re-training (NeuroAL, arXiv 2411.07066)

usage: neuroal [GROUP=OPTION ...] [KEY=VALUE ...]     one run
       neuroal -m GROUP=A,B KEY=1,2 ...               every combination

examples:
  neuroal model=zoo/llama pruner=wanda topup=neuroal sparsity=s70 seed=0
  neuroal -m pruner=magnitude,wanda topup=uniform,neuroal sparsity=s60,s70,s80
  neuroal model=hf model.path=FOLDER sparsity.ratio=0.65 save.model=OUT
  neuroal pruner=sparsegpt pruner.damping=0.1 --cfg job

GROUPS (* = unless you say otherwise)

{groups}

KEYS

{keys}

  An option of pruner, topup or refine has parameters of its own: its YAML lists them, and so does
  neuroal GROUP=OPTION --cfg job --package GROUP. The YAMLs are in
  {conf}

FLAGS

  -m, --multirun      every combination of the values given with commas
  -c, --cfg job       print the composed configuration and stop (-p GROUP: that part alone)
  -cd, --config-dir   folder of your own with GROUP/OPTION.yaml in it, besides those above
  -h, --help          this text
  --version           version of this program
  --hydra-help        what else Hydra can do: other launchers, completion in the shell
"""

PRUNING = ("pruner", "topup", "refine", "sparsity", "rules", "calibration", "save")
"""Groups and keys that say how to prune."""
EVALUATION_HELP = """\
neuroal-eval {version}: measure a model as it is

usage: neuroal-eval [GROUP=OPTION ...] [KEY=VALUE ...]     one model
       neuroal-eval -m model=A,B ...                       several

examples:
  neuroal-eval model=hf model.path=FOLDER task=lm data.root=DATA
  neuroal-eval model=hf model.path=HUB_NAME model.revision=COMMIT task=paper
  neuroal-eval model=zoo/llama task.names=[arc_easy] task.limit=100 data.root=DATA

{groups}

Keys: those of neuroal --help under model, task, data, device and out. The figures are printed and
kept under OUT/measured, where they are found again and runs take their dense figures from.
"""


def evaluation_help() -> str:
    """What ``neuroal-eval --help`` prints."""
    groups = options_by_group()
    told = "\n\n".join(_describe(group, groups[group]) for group in ("model", "task"))
    return EVALUATION_HELP.format(version=version("neuroal"), groups=told)


def options_by_group(folders: Sequence[Path] = ()) -> dict[str, dict[str, str]]:
    """Group → option → the comment that its YAML begins with.

    Args:
        folders: searched beside ``conf``.
    """
    groups: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for root in (conf_dir(), *folders):
        for path in sorted(root.rglob("*.yaml")):
            group, *option = path.relative_to(root).with_suffix("").parts
            if option and group != "hydra":
                text = path.read_text(encoding="utf-8").removeprefix("# @package _global_\n")
                first = text.partition("\n")[0]
                comment = first.lstrip("# ").rstrip() if first.startswith("#") else ""
                groups.setdefault(group, {})["/".join(option)] = comment
    return {group: options for group, options in groups.items() if options}


def keys() -> dict[str, tuple[Any, str]]:
    """Dotted name of every key outside the methods → its default and what it is."""
    return dict(_keys(RunConfig, ""))


def _keys(schema: Any, prefix: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    types = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(types[field.name]):
            yield from _keys(types[field.name], f"{prefix}{field.name}.")
        elif "help" in field.metadata:
            listed = field.default_factory is not dataclasses.MISSING
            default = [] if listed else field.default
            yield f"{prefix}{field.name}", (default, field.metadata["help"])


def help_text() -> str:
    """What ``neuroal --help`` prints."""
    return HELP.format(
        version=version("neuroal"),
        groups="\n\n".join(_describe(*group) for group in options_by_group().items()),
        keys="\n".join(_columns({_shown(k, v): text for k, (v, text) in keys().items()})),
        conf=conf_dir(),
    )


def _describe(group: str, options: dict[str, str]) -> str:
    defaults = default_options()
    marked = {
        f"{'*' if defaults.get(group) == option else ' '}{option}": comment
        for option, comment in options.items()
    }
    head = f"{group}=" if group in defaults else f"+{group}="
    return "\n".join([head, *_columns(marked, indent=1)])


def default_options() -> dict[str, str]:
    """Group → the option it has in ``conf/config.yaml``."""
    found = {}
    for line in (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines():
        group, colon, option = line.partition("#")[0].strip().removeprefix("- ").partition(": ")
        if colon and line.startswith("  - ") and not group.startswith("override"):
            found[group] = option.strip()
    return found


def _shown(key: str, default: Any) -> str:
    if default == "???":
        return key
    return f"{key}={'null' if default is None else str(default).lower()}"


def _columns(rows: dict[str, str], indent: int = 2) -> list[str]:
    width = max(map(len, rows))
    return [f"{' ' * indent}{name:<{width}}  {text}".rstrip() for name, text in rows.items()]


def wrong_name(key: str, value: str, folders: Sequence[Path] = ()) -> str | None:
    """What is wrong with ``key=value`` if that is its group, its option or its first name."""
    groups = options_by_group(folders)
    if key in groups and value not in groups[key]:
        other = ANY_OTHER.get(key, "").format(value=value)
        return (
            f"{key}={value}: no such option; there are {', '.join(groups[key])}"
            f"{nearest(value, groups[key])}" + (f"; any other: {other}" if other else "")
        )
    known = [*groups, *keys()]
    if key.partition(".")[0] not in {name.partition(".")[0] for name in known}:
        return f"{key}: no such group or key{nearest(key, known)}"
    return None


def bare_word(word: str) -> str:
    """How to say `word`, which lacks its ``=``."""
    fitting = [f"{g}={word}" for g, options in options_by_group().items() if word in options]
    hint = f" (did you mean '{fitting[0]}'?)" if fitting else ""
    return f"'{word}': write GROUP=OPTION or KEY=VALUE{hint}"


def search_folder(path: str) -> Path | None:
    """The folder that an entry of ``hydra.searchpath`` names, if it is one."""
    kind, _, rest = path.rpartition("://")
    if kind == "pkg":
        package, _, below = rest.partition("/")
        spec = find_spec(package)
        homes = spec.submodule_search_locations if spec else None
        return Path(homes[0], below) if homes else None
    return Path(rest)
