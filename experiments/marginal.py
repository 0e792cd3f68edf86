"""What allocation by equal marginals gives, where it stops, and which of its parts matter.

    python experiments/marginal.py list
    python experiments/marginal.py run quality generality ablation --data DATA --jobs 4
    python experiments/marginal.py table

`run` does the runs of the named studies that `results/marginal.csv` lacks, and adds a row for each.
`table` puts the tables into `results/marginal.md`, between the marks that stand there. The protocol
is the one the method was found with: SmolLM2-135M-Instruct, Wanda, exact budgets, calibrated on 64
windows of 512 tokens of c4_sample, perplexity on the first 64 windows of 512 tokens of each text;
every study changes one factor of it.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from pool import out_of, run_all
from studies import BASE, STUDIES, TIMED, texts_of

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "marginal.csv"
PAGE = ROOT / "results" / "marginal.md"
TASKS = ("wikitext2", "ptb", "c4_sample")
COLUMNS = ("study", "name", *TASKS, "allocate", "prune", "jobs", "device", "date", "error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the studies and their runs")
    commands.add_parser("table", help="bring results/marginal.md up to date")
    runs = commands.add_parser("run", help="do what results/marginal.csv lacks")
    runs.add_argument("studies", nargs="+", choices=[*STUDIES, "all"])
    runs.add_argument("--data", type=Path, required=True, help="folder of local data sets")
    runs.add_argument("--out", type=Path, default=Path("runs/marginal"), help="folder for records")
    runs.add_argument("--jobs", type=int, default=1, help="processes that share the device")
    runs.add_argument("--threads", type=int, default=2, help="CPU threads of each process")
    runs.add_argument("--only", default="", help="runs whose name contains this")
    runs.add_argument("--set", nargs="*", default=[], help="overrides of all runs; needs --table")
    runs.add_argument("--table", type=Path, help="file for the rows (results/marginal.csv)")
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(f"{study}: {name}" for study, names in STUDIES.items() for name in names))
    elif arguments.command == "table":
        from marginal_tables import write_page

        write_page(pd.read_csv(TABLE), PAGE)
    elif arguments.set and arguments.table is None:
        parser.error("--set leaves the protocol: say with --table where its rows shall go")
    else:
        do(arguments, arguments.table or TABLE)


def do(arguments: argparse.Namespace, table: Path) -> None:
    """Do the runs that are missing in `table` and add their rows."""
    texts_of(arguments.data, arguments.out)
    wanted = STUDIES if "all" in arguments.studies else arguments.studies
    for study in wanted:
        take_over(study, table)
        done = finished(table)
        runs = {
            name: overrides_of(overrides, arguments, f"{study} {name}")
            for name, overrides in STUDIES[study].items()
            if (study, name) not in done and arguments.only in name
        }
        for outcome in run_all(runs, arguments.jobs, arguments.threads):
            row = {"study": study, "name": outcome.name, "jobs": arguments.jobs}
            row |= {"date": str(date.today()), "error": outcome.error}
            if outcome.record is not None:
                row |= figures(outcome.record)
            add(row, table)
            print(json.dumps(row), flush=True)


def take_over(study: str, table: Path) -> None:
    """Add to `study` the rows of runs that another study has made already.

    But for `TIMED` ones, whose seconds those of others cannot stand for.
    """
    if study in TIMED:
        return
    rows = finished(table)
    made = {
        settings_of(STUDIES[other][name]): row
        for (other, name), row in rows.items()
        if other not in TIMED and name in STUDIES.get(other, {})
    }
    for name, overrides in STUDIES[study].items():
        same = made.get(settings_of(overrides))
        if (study, name) not in rows and same:
            add({**same, "study": study, "name": name}, table)


def settings_of(overrides: Sequence[str]) -> frozenset[tuple[str, str]]:
    """What a run sets; of two words on the same key the last counts."""
    return frozenset(dict(override.split("=", 1) for override in [*BASE, *overrides]).items())


def overrides_of(overrides: Sequence[str], arguments: argparse.Namespace, name: str) -> list[str]:
    own = [text.replace("TEXTS", str(arguments.out / "texts")) for text in overrides]
    places = [f"data.root={arguments.data}", f"out={out_of(arguments.out, name)}"]
    return [*BASE, *arguments.set, *own, *places]


def figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one record."""
    seconds = record["costs"]["seconds"]
    found = {task: round(record["metrics"][task]["pruned"]["value"], 3) for task in TASKS}
    return found | {
        "allocate": round(seconds["allocate"], 2),
        "prune": round(seconds["prune"], 2),
        "device": record["environment"]["device"],
    }


def finished(table: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows without an error, by study and name."""
    if not table.is_file():
        return {}
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["error"]]
    return {(row["study"], row["name"]): row for row in rows}


def add(row: Mapping[str, Any], table: Path) -> None:
    """Append one row to `table`."""
    new = not table.is_file()
    table.parent.mkdir(exist_ok=True)
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
