"""The command ``neuroal-tables``: make tables and a report of the records that overrides select."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from neuroal.cli.application import exit_with
from neuroal.cli.compose import check, with_experiment
from neuroal.cli.grid_records import grid_selection, pack_records
from neuroal.cli.messages import print_json
from neuroal.cli.selecting import select
from neuroal.errors import UserError, nearest

if TYPE_CHECKING:
    from neuroal.tables.study import Study
    from neuroal.tables.table import Table

HELP = """\
neuroal-tables: make tables and a report from records

usage: neuroal-tables COMMAND [--limited] [--to FOLDER] [GROUP=OPTION ...] [KEY=VALUE ...]
       neuroal-tables explain RECORD [--to FOLDER]

  paper     write all tables as Markdown, LaTeX, CSV and Parquet to OUT/tables
  report    write OUT/report.html, a self-contained page that links to the records
  figures   write plots as SVG and PDF to OUT/figures
  compare   print wins, ties and losses of the top-ups
  explain   print what the run of one record pruned, and write it as a page with plots, in
            Markdown and LaTeX, to OUT/explained/IDENTITY
  pack      write all that tables read of the records to the Parquet file --to FILE, which the
            other commands read in place of a folder: out=FILE

  out=FOLDER                folder of the records (default: runs)
  GROUP=OPTION, KEY=VALUE   select the records with these values; commas separate alternatives
  experiment=NAME           select the cases of a declared grid; tables mark missing records
  --json                    print the files, or the comparison, as JSON
  --limited                 include results on part of a task (task.limit), marked as limited
  --to FOLDER               write to FOLDER instead of OUT

examples:
  neuroal-tables paper experiment=paper out=runs
  neuroal-tables report out=runs pruner=wanda sparsity=s60,s70
  neuroal-tables compare out=runs topup=uniform,neuroal task.limit=8 task.seqlen=256
  neuroal-tables explain runs/IDENTITY.json
  neuroal-tables pack experiment=paper out=runs --to paper.parquet
"""
FLAGS = ("--to", "--limited", "--json", "--help")
PACKED = ".parquet"
COMMANDS = ("paper", "report", "figures", "compare", "explain", "pack")


@dataclasses.dataclass(frozen=True)
class Request:
    """Parsed command line."""

    command: str
    overrides: list[str]
    limited: bool
    to: Path | None
    as_json: bool = False
    packed: Path | None = None
    """File of packed records that ``out`` names in place of a folder."""


def parse(arguments: Sequence[str]) -> Request | None:
    """Parse the command line; return None if it asks for help."""
    if not arguments or {"-h", "--help"} & set(arguments):
        return None
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(
            f"{command}: no such command; there are {', '.join(COMMANDS)}"
            f"{nearest(command, COMMANDS)}"
        )
    limited, to, as_json, overrides = False, None, False, []
    items = iter(rest)
    for item in items:
        flag, _, value = item.partition("=")
        if flag == "--to":
            to = Path(value or next(items, ""))
            if to == Path():
                raise UserError("--to: needs a folder, as in --to FOLDER")
        elif item == "--limited":
            limited = True
        elif item == "--json":
            as_json = True
        elif item.startswith("-"):
            raise UserError(f"{item}: no such flag{nearest(item, FLAGS)}")
        else:
            overrides.append(item)
    if command == "explain":
        if len(overrides) != 1 or limited:
            raise UserError("explain: needs one record, as in neuroal-tables explain OUT/ID.json")
        return Request(command, overrides, limited, to, as_json)
    packed = None
    for item in [item for item in overrides if item.startswith("out=") and item.endswith(PACKED)]:
        packed = Path(item.removeprefix("out="))
        overrides.remove(item)
    return Request(command, with_experiment(overrides), limited, to, as_json, packed)


def main() -> NoReturn:
    """Run the console script ``neuroal-tables``."""
    exit_with(lambda: tables_command(sys.argv[1:]))


def tables_command(arguments: Sequence[str]) -> None:
    """Run the command with `arguments`."""
    request = parse(arguments)
    if request is None:
        print(HELP, end="")
        return
    if request.command == "explain":
        _explain(Path(request.overrides[0]), request.to, request.as_json)
        return
    if request.command == "pack":
        line = pack_records(request.overrides, request.packed, request.to)
        if request.as_json:
            print_json({"files": [str(request.to)]})
        else:
            print(line)
        return
    from neuroal.tables.reading import all_records  # late: importing pandas takes a second
    from neuroal.tables.study import study, tables

    configs, is_grid = check(request.overrides)
    if is_grid:
        records = all_records(request.packed) if request.packed else None
        selection, expected = grid_selection(request.overrides, request.limited, records)
    else:
        selection, expected = select(request.overrides, request.limited), None
    out = request.packed or Path(configs[0].out)
    results = study(out, selection, expected)
    try:
        lines = _output(request, results, out)
    except OSError as error:
        reason = f"{error.filename}: cannot be written ({error.strerror})"
        raise UserError(f"{reason}; name a writable folder with --to FOLDER") from error
    if not request.as_json:
        print(*lines, sep="\n")
    elif request.command == "compare":
        compared = _comparison(tables(results), results, out)
        print_json({table.name: table.data.to_dict("records") for table in compared})
    else:
        print_json({"files": lines, "notes": list(results.notes)})


def _explain(path: Path, to: Path | None, as_json: bool) -> None:
    """Print what the run of the record at `path` pruned, and write it to a folder."""
    from neuroal.records.store import load_record
    from neuroal.tables import formats
    from neuroal.tables.explain import Explanation, write_explanation

    if path.suffix == PACKED:
        raise UserError(f"explain: {path}: lacks the ratios of rows; name a record OUT/ID.json")
    record = load_record(path)
    explanation = Explanation.of(record)
    folder = to or path.parent / "explained" / record.identity
    paths = [str(file) for file in write_explanation(explanation, folder)]
    if as_json:
        print_json({"files": paths})
        return
    print(*map(formats.terminal, explanation.tables()), sep="\n\n")
    print("", *paths, sep="\n")


def _output(request: Request, results: Study, out: Path) -> list[str]:
    """Write the output of the command; return the lines to print."""
    from neuroal.tables import formats
    from neuroal.tables.report import write_report
    from neuroal.tables.study import tables

    all_tables = tables(results)
    home = out.with_suffix("") if request.packed else out
    if request.command == "compare":
        return [formats.terminal(table) for table in _comparison(all_tables, results, out)]
    if request.command == "figures":
        from neuroal.tables.figures import write_figures

        return [str(path) for path in write_figures(results, request.to or home / "figures")]
    if request.command == "report":
        return [str(write_report(results, all_tables, out, request.to or home))]
    paths = formats.write(all_tables, request.to or home / "tables")
    texts = [str(path) for path in paths if path.suffix == ".md"]
    return texts if request.as_json else [*texts, *results.notes]


def _comparison(all_tables: Sequence[Table], results: Study, out: Path) -> list[Table]:
    """Return the tables of wins, ties and losses."""
    from neuroal.tables.study import named

    if len(results.expected.competitors) < 2:
        only = results.expected.competitors[0]
        raise UserError(f"out={out}: holds {only} only; a comparison needs two top-ups")
    return [named(all_tables, name) for name in ("wins", "pairs")]
