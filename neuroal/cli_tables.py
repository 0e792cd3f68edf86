"""The commands of ``neuroal-tables``: overrides select records, as they select runs elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroal.cli_compose import check
from neuroal.config import RunConfig, conf_dir, register
from neuroal.errors import UserError, nearest
from neuroal.tables.selection import Selection

if TYPE_CHECKING:
    from neuroal.tables.cases import Expected
    from neuroal.tables.study import Study

HELP = """\
neuroal-tables: tables and a report from records alone

usage: neuroal-tables COMMAND [--limited] [--to FOLDER] [GROUP=OPTION ...] [KEY=VALUE ...]

  paper     all tables as Markdown, LaTeX, CSV and Parquet, in OUT/tables (or --to FOLDER)
  report    OUT/report.html (or --to FOLDER): one page that needs no network; it links to the
            records
  compare   wins, ties and losses of the top-ups, on screen

  out=FOLDER           where the records are (runs)
  GROUP=OPTION, KEY=VALUE, also several with commas: only the records that have these
  +experiment=NAME     the cases of a declared grid; those without a record are shown as missing
  --limited            also results on part of a task (task.limit), marked as such

examples:
  neuroal-tables paper +experiment=paper out=runs
  neuroal-tables report out=runs pruner=wanda sparsity=s60,s70
  neuroal-tables compare out=runs topup=uniform,neuroal task.limit=8 task.seqlen=256
"""
COMMANDS = ("paper", "report", "compare")
ELSEWHERE = ("out", "experiment", "device", "devices", "offload", "batch", "logger", "save", "data")
"""Keys that select nothing: where and how runs work."""
OPTION_SETS = {"model": ("name", "path", "revision"), "calibration": ("name", "path")}
"""What an option of a group is known by, where it is not everything in the group."""
Compose = Callable[[Sequence[str]], list[RunConfig]]


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    command: str
    overrides: tuple[str, ...] = ()
    limited: bool = False
    to: Path | None = None


def parse(arguments: Sequence[str]) -> Request | None:
    """The request; None: help.

    Raises:
        UserError: no such command or flag.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        return None
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(
            f"{command}: no such command; there are {', '.join(COMMANDS)}"
            f"{nearest(command, COMMANDS)}"
        )
    limited, to, overrides = False, None, []
    items = iter(rest)
    for item in items:
        flag, _, value = item.partition("=")
        if flag == "--to":
            to = Path(value or next(items, ""))
            if to == Path():
                raise UserError("--to: must be given a folder, as in --to FOLDER")
        elif item == "--limited":
            limited = True
        elif item.startswith("-"):
            raise UserError(f"{item}: no such flag{nearest(item, ('--to', '--limited', '--help'))}")
        else:
            overrides.append(item)
    return Request(command, tuple(overrides), limited, to)


def select(overrides: Sequence[str], limited: bool, choices: Compose) -> Selection:
    """Turn overrides into a selection.

    A key selects by its value, a group by all values that its option sets. Several values of one
    override are alternatives.

    Args:
        choices: configurations of the overrides' first choices together, then of every other on
            its own (`cli.check`).
    """
    wanted, tasks = [], None
    selecting = [override for override in overrides if _key(override)]
    for override in selecting:
        key = _key(override)
        others = [other for other in overrides if other != override and _single(other)]
        configs = [dataclasses.asdict(config) for config in choices([*others, override])]
        if key in ("task", "task.names"):
            tasks = frozenset(name for config in configs for name in config["task"]["names"])
        else:
            wanted.append(tuple(_values(key, config) for config in configs))
    return Selection(tuple(wanted), tasks, limited=limited, text=f"has {' '.join(selecting)}")


def _key(override: str) -> str:
    """The key that an override selects by; empty if it selects nothing."""
    key = override.partition("=")[0].lstrip("+").partition("@")[0]
    return "" if key.split(".")[0] in (*ELSEWHERE, "hydra") else key


def _single(override: str) -> bool:
    """Whether an override may stand beside another that is taken apart (no sweep of its own)."""
    value = override.partition("=")[2]
    return "," not in value or value.startswith(("[", "{", "'", '"'))


def _values(key: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if (conf_dir() / key).is_dir():
        return dict(_leaves(key, config[key])) if config[key] else {key: config[key]}
    found: Any = config
    for part in key.split("."):
        found = found[part]
    return {key: found}


def _leaves(group: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if key in OPTION_SETS.get(group, (key,)):
            yield f"{group}.{key}", value


def tables_command(arguments: Sequence[str]) -> None:
    """Do what `arguments` say.

    Raises:
        UserError: wrong arguments, or records that do not give what is asked for.
    """
    request = parse(arguments)
    if request is None:
        print(HELP, end="")
        return
    from neuroal.tables.study import study  # late: pandas and matplotlib take a second

    if any(override.startswith("+experiment=") for override in request.overrides):
        out, selection, expected = _of_grid(request)
        found = study(out, selection, expected)
    else:
        register()
        out = Path(check(request.overrides)[0].out)
        found = study(out, select(request.overrides, request.limited, check))
    print(*_made(request, found, out), sep="\n")


def _of_grid(request: Request) -> tuple[Path, Selection, Expected]:
    """Where the records of a declared grid are, which they are, and what there should be."""
    from neuroal.cli_grid import planned
    from neuroal.tables.declared import expected_from_runs

    declaration, runs = planned(request.overrides)
    parts = declaration.parts
    configs = [dataclasses.asdict(run.config) for run in runs]
    pruners = [dict(run.run.choices)["pruner"] for run in runs]
    tasks = [[t for part in parts if p in part.pruners for t in part.tasks] for p in pruners]
    counted = {task for part in parts if not part.beside for task in part.tasks}
    beside = {task for part in parts for task in part.tasks} - counted
    expected = expected_from_runs(zip(configs, tasks, strict=True), declaration.missing, beside)
    asked = {f"task.{key}": configs[0]["task"][key] for key in ("limit", "seqlen")}
    selection = Selection(
        wanted=tuple(({key: value},) for key, value in asked.items() if value is not None),
        identities=frozenset(run.identity for run in runs),
        limited=request.limited,
        text="is of this grid; see neuroal-grid status",
    )
    return Path(runs[0].config.out), selection, expected


def _made(request: Request, found: Study, out: Path) -> list[str]:
    """Make what was asked for; returns the lines to print."""
    from neuroal.tables import formats
    from neuroal.tables.report import write_report
    from neuroal.tables.study import named, tables

    made = tables(found)
    if request.command == "compare":
        if len(found.expected.competitors) < 2:
            only = found.expected.competitors[0]
            raise UserError(f"out={out}: only {only} is there; a comparison needs two top-ups")
        return [formats.terminal(named(made, "wins"))]
    if request.command == "report":
        return [str(write_report(found, made, out, request.to))]
    paths = formats.write(made, request.to or out / "tables")
    return [*(str(path) for path in paths if path.suffix == ".md"), *found.notes]
