"""How long the tables and the report of many records take.

    python experiments/harness_benchmark_tables.py --records 10000

The records are copies of one real run's (zoo/llama under NeuroAL, rows and all, so that a file has
the size that files have) under as many configurations as asked for, with figures drawn at random.
Each command runs in a process of its own. The table is printed last.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from neuroal.cli import composed
from neuroal.config import conf_dir

MODELS = tuple(f"model-{i}" for i in range(10))
PRUNERS = ("magnitude", "wanda", "multiflow")
TOPUPS = ("uniform", "owl", "alpha", "dlp", "atp", "neuroal")
SPARSITIES = (0.5, 0.6, 0.7, 0.8)
LM = ("wikitext2", "ptb", "c4")
ZERO_SHOT = ("rte", "winogrande", "boolq", "hellaswag", "arc_easy", "arc_challenge", "openbookqa")
COMMANDS = ("paper", "report", "compare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to write them, to be kept (else: not)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        size = write_records(folder, real_record(), arguments.records)
        print(f"{arguments.records:,} records, {size / 2**20:,.0f} MiB\n")
        print("| command | seconds | CPU seconds |\n|---|---:|---:|")
        for command in COMMANDS:
            wall, cpu = seconds(command, folder)
            print(f"| neuroal-tables {command} | {wall:.1f} | {cpu:.1f} |", flush=True)


def real_record() -> dict[str, Any]:
    """The record of a run of some seconds."""
    from neuroal.run import run  # late: it takes seconds to import

    with tempfile.TemporaryDirectory() as out:
        config = composed(
            [
                "topup=neuroal",
                "topup.block_candidates=[0.05]",
                "topup.row_candidates=[0.05]",
                "calibration.windows=2",
                "calibration.search_windows=2",
                "task=none",
                f"out={out}",
            ]
        )
        record, _ = run(config)
    found: dict[str, Any] = record.to_dict()
    return found


def write_records(folder: Path, pattern: dict[str, Any], count: int) -> int:
    """Write `count` records; returns their bytes."""
    generator = np.random.default_rng(0)
    ratios = json.dumps(pattern["plan"]["ratios"], indent=1, sort_keys=True).replace("\n", "\n  ")
    size = 0
    for number, changes in enumerate(islice(configurations(), count)):
        identity = f"{number:016x}"
        record = pattern | {"identity": identity, "metrics": metrics(generator)}
        record["config"] = pattern["config"] | changes
        record["plan"] = pattern["plan"] | {"ratios": None}
        text = json.dumps(record, indent=1, sort_keys=True)
        # The largest part is the same in all: written once.
        text = text.replace('"ratios": null', f'"ratios": {ratios}')
        size += (folder / f"{identity}.json").write_text(text)
    return size


def configurations() -> Iterator[dict[str, Any]]:
    """What the records differ in: seeds last, as many as it takes."""
    options = {
        group: {name: _node(group, name) for name in names}
        for group, names in (("pruner", PRUNERS), ("topup", TOPUPS))
    }
    for seed in range(10**6):
        for model, pruner, topup, sparsity in product(MODELS, PRUNERS, TOPUPS, SPARSITIES):
            yield {
                "model": {**MODEL, "name": model, "path": model},
                "pruner": options["pruner"][pruner],
                "topup": options["topup"][topup],
                "sparsity": {"ratio": sparsity, "keep": None, "of": None},
                "seed": seed,
            }


MODEL = {
    "source": "hf",
    "revision": None,
    "dtype": "auto",
    "include": [],
    "exclude": [],
    "trust_remote_code": False,
}


def _node(group: str, name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))


def metrics(generator: np.random.Generator) -> dict[str, Any]:
    """Figures of ten tasks, at random."""
    found: dict[str, Any] = {}
    for task in LM:
        value = float(generator.uniform(10, 500))
        pruned = {"value": value, "stderr": 0.1, "windows": 64}
        dense = {"value": 8.0, "stderr": 0.1, "windows": 64}
        found[task] = {"kind": "perplexity", "limit": None, "seqlen": 256}
        found[task] |= {"dense": dense, "pruned": pruned}
    for task in ZERO_SHOT:
        figures = {"acc_stderr": 0.01, "documents": 500, "version": "0.4.13"}
        found[task] = {"kind": "zero_shot", "limit": None, "seqlen": None}
        found[task]["dense"] = {"acc": 0.7, **figures}
        found[task]["pruned"] = {"acc": float(generator.uniform(0.3, 0.7)), **figures}
    return found


def seconds(command: str, folder: Path) -> tuple[float, float]:
    """Of the command from start to end, imports and all: by the clock, and of all its processes."""
    call = "import sys; from neuroal.cli import main_tables; sys.argv[0] = 'x'; main_tables()"
    start, used = time.perf_counter(), _children()
    subprocess.run(
        [sys.executable, "-c", call, command, f"out={folder}"], check=True, capture_output=True
    )
    return time.perf_counter() - start, _children() - used


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
