"""Time `neuroal-grid run` with several workers on each of several GPUs of one host."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.common import DEVICE, Store, free_memory
from bench.models import llama_config, random_model
from neuroal.models.location import ZOO
from neuroal.parallel.processes import visible

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
MODELS = "zoo/llama,zoo/mistral,zoo/phi,zoo/opt"
ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=2, help="on each card, with a core each")
    parser.add_argument("--runs", type=int, default=48)
    parser.add_argument("--warm-up", type=int, help="runs before (default: one for each worker)")
    parser.add_argument("--zoo", action="store_true", help="the embedded models, not --shape")
    parser.add_argument("--windows", type=int, default=128, help="of pruning and perplexity")
    parser.add_argument("--seqlen", type=int, help="default: the longest of the model")
    parser.set_defaults(shape="1b")


def main(store: Store, arguments: argparse.Namespace) -> None:
    if arguments.runs <= max(arguments.cards) * arguments.workers:
        raise SystemExit("grid: --runs must be above the number of workers")
    subject = "zoo" if arguments.zoo else f"{arguments.shape}-{arguments.dtype}"
    with tempfile.TemporaryDirectory(prefix="neuroal-bench-") as folder:
        models = [f"model={MODELS}"] if arguments.zoo else _saved(arguments, Path(folder, "model"))
        for cards in arguments.cards:
            store.measure(
                f"grid-{cards}-{subject}-{arguments.workers}workers",
                partial(measure, arguments, models, cards, Path(folder, f"cards{cards}")),
            )


def measure(
    arguments: argparse.Namespace, models: Sequence[str], cards: int, folder: Path
) -> dict[str, Any]:
    """Time a grid of `--runs` runs by NeuroAL with Wanda on `cards` cards.

    `first_seconds` is the time until the first record, and `steady_seconds` that from the record
    by which every worker may have finished a run until the last one, in which `steady_runs` were
    recorded.
    """
    workers = cards * arguments.workers
    before = workers if arguments.warm_up is None else arguments.warm_up
    if before:
        _run(arguments, models, cards, range(-before, 0), folder / "before")
    begin = time.time()
    records = _run(arguments, models, cards, range(arguments.runs), folder / "runs")
    seconds = time.time() - begin
    ends = sorted(path.stat().st_mtime - begin for path in records)
    return {
        "cards": cards,
        "workers": arguments.workers,
        "runs": len(ends),
        "first_seconds": ends[0],
        "steady_runs": len(ends) - workers,
        "steady_seconds": ends[-1] - ends[workers - 1],
        "seconds": seconds,
    }


def _run(
    arguments: argparse.Namespace, models: Sequence[str], cards: int, numbers: range, out: Path
) -> list[Path]:
    """Let all workers do the runs of these numbers; return the records."""
    names = len(models[0].split(","))
    seeds = sorted({10_000 + number // names for number in numbers})
    grid = [
        "experiment=zoo_seeds",
        *models,
        "topup=neuroal",
        "sparsity=s70",
        f"seed={','.join(map(str, seeds))}",
        "task.names=[builtin]",
        *(f"{key}={arguments.windows}" for key in ("calibration.windows", "task.limit")),
        *(f"{key}.seqlen={arguments.seqlen or 'null'}" for key in ("calibration", "task")),
        f"out={out}",
    ]
    command = [sys.executable, "-m", "neuroal.grid", "run", *grid]
    out.mkdir(parents=True)
    cores = sorted(os.sched_getaffinity(0))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for worker in range(cards * arguments.workers):
            card = torch.device("cuda", worker // arguments.workers)
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": visible(card) if DEVICE.type == "cuda" else "",
            }
            with (out / f"worker{worker}.log").open("w") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            processes.append(process)
            os.sched_setaffinity(process.pid, {cores[worker % len(cores)]})
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    records = list(out.glob("?" * 16 + ".json"))
    if any(codes) or len(records) != len(seeds) * names:
        raise RuntimeError(f"{len(records)} records: {(out / 'worker0.log').read_text()[-2000:]}")
    return records


def _saved(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Save a model of `--shape` with random weights; return the options that name it."""
    model = random_model(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    model.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(ZOO / "llama" / name, folder)
    del model
    free_memory()
    # Without a batch, the first worker would take the memory of the others.
    return ["model=hf", f"model.path={folder}", f"model.dtype={arguments.dtype}", "batch=8"]
