"""Measure the time and memory of offloading, at the sizes of LLaMA-7B and 30B.

Random weights, float16; Wanda at 70 %; 8 windows of 2048 tokens for a search of two block and two
row candidates (one and one at 30B), 128 windows (32 at 30B) for pruning, 32 for a perplexity.
(``7b-disk`` writes a checkpoint of 13.5 GB to the system's temporary folder first.)
The criteria, masks and perplexity of each stage are stored, so that the table can compare them with
those of the model whose weights are all on the GPU.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from bench.common import DEVICE, Store, compile_seconds, now, peak_gib, reset_peak
from bench.models import allocation_context, llama_config, random_llama, random_tokens
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.models.offload import open_on_disk, place_on_devices, place_on_host, save_offloaded
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.neuroal import NeuroAL
from neuroal.tracking import QuietProgress

LARGE = ("7b-none", "7b-blocks", "7b-disk", "30b-blocks")
SEVERAL = ("7b-devices2", "7b-devices4", "65b-devices2", "65b-devices4", "65b-blocks")
"""For machines with several GPUs, and host memory for 121 GiB of weights."""
TINY = ("tiny-none", "tiny-blocks", "tiny-disk", "tiny-devices2")

Work = Callable[[DecoderModel, Tensor], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "measurements",
        nargs="*",
        type=measurement,
        default=LARGE,
        help=f"of {', '.join(LARGE + SEVERAL + TINY)}; by default {', '.join(LARGE)}. 7b-disk "
        "writes a checkpoint of 13.5 GB to the system's temporary folder first. The names are "
        "shape and place of the weights, which are float16: --shape, --blocks and --dtype have no "
        "effect",
    )
    parser.add_argument("--windows", type=int, help="for pruning (128; 32 at 30B)")
    parser.add_argument("--seqlen", type=int, default=2048)


def measurement(name: str) -> str:
    names = LARGE + SEVERAL + TINY
    if name not in names:
        raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(names)}")
    return name


def main(store: Store, arguments: argparse.Namespace) -> None:
    for name in arguments.measurements:
        shape, offload = name.split("-")
        windows = arguments.windows or (32 if shape in ("30b", "65b") else 128)
        tokens = random_tokens(windows, arguments.seqlen)
        with TemporaryDirectory() as folder:
            measure(store, shape, offload, tokens, Path(folder))


def measure(store: Store, shape: str, offload: str, tokens: Tensor, folder: Path) -> None:
    """Measure the stages that have no result yet, on one model that is built when needed."""

    @cache
    def decoder() -> DecoderModel:
        begin = now()
        model = placed_llama(shape, offload, folder)
        print(f"{shape}-{offload}: built in {now() - begin:.1f} s", flush=True)
        if shape not in ("30b", "65b"):  # warming up would take long and change little
            compile_seconds(model, Wanda(), tokens[:8], Wanda.needs)
            search(model, tokens[:8], NeuroAL(block_candidates=[0.1], row_candidates=[0.1]))
        return model

    few = [0.1] if shape == "30b" else [0.05, 0.2]
    topup = NeuroAL(block_candidates=few, row_candidates=few)
    stages: dict[str, tuple[Work, Tensor]] = {
        "search": (partial(search, topup=topup), tokens[:8]),
        "perplexity": (dense_perplexity, tokens[:32]),
        "prune": (prune, tokens),  # last: it changes the weights
    }
    for stage, (work, chosen) in stages.items():
        store.measure(f"offload-{shape}-{offload}-{stage}", partial(timed, decoder, work, chosen))


def placed_llama(shape: str, offload: str, folder: Path) -> DecoderModel:
    """Return a random LLaMA of equal blocks with its weights on the GPU or elsewhere.

    `offload` is ``none``, ``blocks`` (host memory), ``devicesN`` (N GPUs), or ``disk`` (a
    checkpoint in `folder`).
    """
    config = llama_config(shape, "float16")
    decoder = random_llama(config, alike=True, on_host=offload != "none")
    if offload == "none":
        return decoder
    if offload.startswith("devices"):
        devices = pick_devices(DEVICE, int(offload.removeprefix("devices")))
        place_on_devices(decoder.model, devices)
        return DecoderModel(decoder.model)
    place_on_host(decoder.model, DEVICE)
    if offload == "blocks":
        return DecoderModel(decoder.model)
    save_offloaded(decoder.model, folder)
    del decoder
    gc.collect()
    return DecoderModel(open_on_disk(folder, config, None, DEVICE, folder))


def search(decoder: DecoderModel, tokens: Tensor, topup: NeuroAL) -> list[Any]:
    """Return the criteria of all candidates of both steps."""
    context = allocation_context(decoder, Wanda(), 0.7, tokens)
    report = topup.allocate(context).report
    return [report["criterion_block"], report.get("criterion_row")]


def dense_perplexity(decoder: DecoderModel, tokens: Tensor) -> float:
    return perplexity(decoder.model, tokens, batch=8).value


def prune(decoder: DecoderModel, tokens: Tensor) -> str:
    """Return a digest of all masks under a uniform plan."""
    context = allocation_context(decoder, Wanda(), 0.7, tokens, batch=8)
    budgets = context.budgets(uniform_plan(decoder, 0.7))
    batch = AdaptiveBatch("prune", 8, divides=True)
    masks = prune_model(decoder, Wanda(), budgets, tokens, batch, QuietProgress())
    digest = hashlib.sha256()
    for key in masks:
        digest.update(masks.bits(key).numpy().tobytes())
    return digest.hexdigest()


def timed(decoder: Callable[[], DecoderModel], work: Work, tokens: Tensor) -> dict[str, Any]:
    """Measure one stage and return its costs and outcome; building the model is not counted."""
    model = decoder()
    reset_peak()
    begin = now()
    with HostPeak() as host:
        outcome = work(model, tokens)
    seconds = now() - begin
    return {
        "windows": len(tokens),
        "seqlen": tokens.shape[1],
        "seconds": seconds,
        "peak_gib": peak_gib(),
        "host_gib": round(host.peak, 2),
        "found": outcome,
    }


class HostPeak:
    """Measure the peak host memory of this process, in GiB, without files mapped from disk."""

    def __enter__(self) -> HostPeak:
        self.peak, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            held = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssSh"))]
            self.peak = max(self.peak, sum(held) * 1024 / 2**30)
            if self._done.wait(0.1):
                return
