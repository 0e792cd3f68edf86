"""What NeuroAL costs, one factor at a time.

    python experiments/benchmark.py search --dtype float16
    python experiments/benchmark.py prune
    python experiments/benchmark.py offload 7b-none 7b-blocks
    python experiments/benchmark.py table

`search`, `ideas`, `prune`, `evaluate`, `kernels`, `semi-structured` and `marginal` take LLaMA
shapes with random weights on a GPU; `offload` sets such models whose weights wait in host memory or
on disk beside ordinary ones (`7b-disk` writes a checkpoint of 13.5 GB to the system's temporary
folder first); `cpu` times the search on SmolLM2, `adaptive` counts how often the adaptive search
finds what the exact one does. Every measurement leaves a JSON file under results/benchmark (or
`--results`), and one that is there is not made again unless `--again`; an error stops only its own
measurement. `table` makes results/benchmark.md of them; `pack` and `unpack` put them into one file
and back.

Forward equivalents = search seconds ÷ (candidates × 2 × seconds of one dense pass of the blocks
over the search windows: plain eager `transformers`, SDPA attention, all windows in one batch, same
dtype, median of 5, same process). The NeuroAL authors' code needs 5.4 on an H100.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import (
    adaptive,
    cpu,
    evaluate,
    ideas,
    kernels,
    marginal,
    offload,
    prune,
    search,
    semi_structured,
    table,
)
from bench.common import RESULTS, SHAPES, Store

PARTS = {
    "search": search,
    "prune": prune,
    "evaluate": evaluate,
    "kernels": kernels,
    "ideas": ideas,
    "semi-structured": semi_structured,
    "offload": offload,
    "marginal": marginal,
    "adaptive": adaptive,
    "cpu": cpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, part in PARTS.items():
        command = commands.add_parser(name, help=(part.__doc__ or "").partition("\n")[0])
        common(command)
        command.add_argument("--again", action="store_true", help="measure what is there, too")
        command.add_argument("--shape", choices=SHAPES, default="7b")
        command.add_argument("--blocks", type=int, help="fewer blocks than the shape has")
        command.add_argument(
            "--dtype", choices=("float16", "bfloat16", "float32"), default="float16"
        )
        part.add_arguments(command)
    common(commands.add_parser("table", help="results/benchmark.md from the files"))
    for name in ("pack", "unpack"):
        command = commands.add_parser(name, help=f"{name} the files as one")
        common(command)
        command.add_argument("file", type=Path)
    arguments = parser.parse_args()
    store = Store(arguments.results, getattr(arguments, "again", False))
    if arguments.command == "table":
        table.main(store)
    elif arguments.command == "pack":
        packed = {found["name"]: found for found in store.all()}
        arguments.file.write_text(json.dumps(packed))
    elif arguments.command == "unpack":
        store.folder.mkdir(parents=True, exist_ok=True)
        for name, found in json.loads(arguments.file.read_text()).items():
            (store.folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    else:
        PARTS[arguments.command].main(store, arguments)


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")


if __name__ == "__main__":
    main()
