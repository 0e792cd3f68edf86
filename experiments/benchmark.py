"""Measure what NeuroAL costs, one factor at a time.

    python experiments/benchmark.py search --dtype float16
    python experiments/benchmark.py prune
    python experiments/benchmark.py offload 7b-none 7b-blocks
    python experiments/benchmark.py devices --devices 1 2 4
    python experiments/benchmark.py grid --cards 1 4 --workers 2
    python experiments/benchmark.py table

`search`, `prune`, `evaluate`, `kernels`, `semi-structured`, `marginal` and `fisher` use LLaMA
shapes with random weights on a GPU. `offload` compares weights in host memory or on disk with
weights on the GPU; `7b-disk` first writes a checkpoint of 13.5 GB to the system's temporary folder.
`cpu` times the search on SmolLM2. `experts` compares a block of experts with a dense block that
does as many products for a token. `devices` times every stage on one and on several GPUs, with the
start of the processes, the copies of the model and compilation apart. `grid` times the workers of
`neuroal-grid run` on one and on several GPUs; start CUDA's multi-process service before it.
`profile` divides the time of the GPU into products, attention, selection, statistics and the rest.

Every measurement writes a JSON file under results/benchmark (or `--results`), and is repeated only
with `--again`. An error stops only its own measurement. `table` fills the marked tables of
results/benchmark.md, leaves the other text unchanged, and draws results/benchmark-parts.svg.

Forward equivalents = search seconds ÷ (candidates × 2 × seconds of one dense pass of the blocks
over the search windows: plain eager `transformers`, SDPA attention, all windows in one batch, same
dtype, median of 5, same process). The NeuroAL authors' code needs 5.4 on an H100.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import (
    cpu,
    devices,
    evaluate,
    experts,
    fisher,
    grid,
    kernels,
    marginal,
    offload,
    profile,
    prune,
    search,
    semi_structured,
    tables,
)
from bench.common import RESULTS, Store
from bench.models import SHAPES

PARTS = {
    "search": search,
    "prune": prune,
    "evaluate": evaluate,
    "kernels": kernels,
    "experts": experts,
    "semi-structured": semi_structured,
    "offload": offload,
    "marginal": marginal,
    "fisher": fisher,
    "devices": devices,
    "grid": grid,
    "profile": profile,
    "cpu": cpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, part in PARTS.items():
        command = commands.add_parser(name, help=(part.__doc__ or "").partition("\n")[0])
        common(command)
        command.add_argument(
            "--again", action="store_true", help="repeat measurements that have a file"
        )
        command.add_argument("--shape", choices=SHAPES, default="7b")
        command.add_argument("--blocks", type=int, help="fewer blocks than the shape has")
        command.add_argument(
            "--dtype", choices=("float16", "bfloat16", "float32"), default="float16"
        )
        part.add_arguments(command)
    common(commands.add_parser("table", help="fill the tables of results/benchmark.md"))
    arguments = parser.parse_args()
    if arguments.command == "table":
        tables.main(Store(arguments.results))
    else:
        PARTS[arguments.command].main(Store(arguments.results, arguments.again), arguments)


def common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")


if __name__ == "__main__":
    main()
