"""What offloading costs in time and gains in memory, at the size of LLaMA-7B and LLaMA-30B.

Random weights, float16; Wanda at 70 %; 8 windows of 2048 tokens for a search of two block and two
row candidates (one and one at 30B), 128 windows (32 at 30B) for pruning, 32 for a perplexity.
(``7b-disk`` writes a checkpoint of 13.5 GB to the system's temporary folder first.)
Each stage keeps what it found, by which the table tells whether criteria, masks and perplexity are
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

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench.common import (
    DEVICE,
    SHAPES,
    VOCABULARY,
    Store,
    compile_seconds,
    now,
    peak_gib,
    random_tokens,
    reset_peak,
)
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel, find_blocks
from neuroal.models.place import open_on_disk, place_on_host, save_offloaded
from neuroal.placement.disk import parameters_on_meta
from neuroal.placement.layout import moved
from neuroal.pruners.budget import Rules
from neuroal.pruners.wanda import Wanda
from neuroal.pruning import prune_model
from neuroal.topups.base import AllocationContext
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import uniform_plan
from neuroal.tracking import QuietProgress

LARGE = ("7b-none", "7b-blocks", "7b-disk", "30b-blocks")
TINY = ("tiny-none", "tiny-blocks", "tiny-disk")

Work = Callable[[DecoderModel, Tensor], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "measurements",
        nargs="*",
        type=measurement,
        default=LARGE,
        help=f"of {', '.join(LARGE + TINY)}; by default all but the tiny ones. 7b-disk writes a "
        "checkpoint of 13.5 GB to the system's temporary folder first. They say shape and place "
        "of the weights, which are float16: --shape, --blocks and --dtype change nothing",
    )
    parser.add_argument("--windows", type=int, help="for pruning (128; 32 at 30B)")
    parser.add_argument("--seqlen", type=int, default=2048)


def measurement(name: str) -> str:
    if name not in LARGE + TINY:
        raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(LARGE + TINY)}")
    return name


def main(store: Store, arguments: argparse.Namespace) -> None:
    for name in arguments.measurements:
        shape, offload = name.split("-")
        windows = arguments.windows or (32 if shape == "30b" else 128)
        tokens = random_tokens(windows, arguments.seqlen)
        with TemporaryDirectory() as folder:
            measure(store, shape, offload, tokens, Path(folder))


def measure(store: Store, shape: str, offload: str, tokens: Tensor, folder: Path) -> None:
    """All stages on one model, which is made as soon as one of them is missing."""

    @cache
    def subject() -> DecoderModel:
        begin = now()
        made = DecoderModel(random_llama(shape, offload, DEVICE, folder))
        print(f"{shape}-{offload}: made in {now() - begin:.1f} s", flush=True)
        if shape != "30b":  # where it would take long and matter little
            compile_seconds(made, Wanda(), tokens[:8], Wanda.needs)
            search(made, tokens[:8], NeuroAL(block_candidates=[0.1], row_candidates=[0.1]))
        return made

    few = [0.1] if shape == "30b" else [0.05, 0.2]
    topup = NeuroAL(block_candidates=few, row_candidates=few)
    stages: dict[str, tuple[Work, Tensor]] = {
        "search": (partial(search, topup=topup), tokens[:8]),
        "perplexity": (dense_perplexity, tokens[:32]),
        "prune": (prune, tokens),  # last: it changes the weights
    }
    for stage, (work, chosen) in stages.items():
        store.measure(f"offload-{shape}-{offload}-{stage}", partial(timed, subject, work, chosen))


def random_llama(shape: str, offload: str, device: torch.device, folder: Path) -> PreTrainedModel:
    """A LLaMA of that shape; all blocks begin with the same random weights.

    With ``disk`` it is first written to `folder`.
    """
    blocks, hidden, inner, heads = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        dtype=torch.float16,
    )
    with parameters_on_meta():
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    shared: dict[str, Tensor] = {}
    matrices = {id(part): n for b in find_blocks(model)[1] for n, part in moved(b)}
    for path, parameter in list(model.named_parameters()):
        home, _, leaf = path.rpartition(".")
        name = matrices.get(id(parameter), path)
        if name not in shared:
            shared[name] = random_weight(parameter.shape, generator, device)
            if offload != "none" and name != path:
                shared[name] = shared[name].cpu()
        # The host's copies are made by `place_on_host`, the device's here.
        made = shared[name] if offload != "none" else shared[name].clone()
        setattr(model.get_submodule(home), leaf, nn.Parameter(made, requires_grad=False))
    if offload == "none":
        return model.to(device)
    place_on_host(model, device)
    if offload == "disk":
        save_offloaded(model, folder)
        del model, shared, parameter, made
        gc.collect()
        return open_on_disk(folder, config, None, device, folder)
    return model


def random_weight(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    if len(shape) == 1:  # a norm
        return torch.ones(shape, dtype=torch.float16, device=device)
    drawn = torch.empty(shape, dtype=torch.float16, device=device)
    return drawn.normal_(0, 0.02, generator=generator)


def search(subject: DecoderModel, tokens: Tensor, topup: NeuroAL) -> list[Any]:
    """Criteria of all candidates of both steps."""
    context = AllocationContext(
        subject, Wanda(), 0.7, Rules.EXACT, tokens, len(tokens), QuietProgress()
    )
    report = topup.allocate(context).report
    return [report["criterion_block"], report.get("criterion_row")]


def dense_perplexity(subject: DecoderModel, tokens: Tensor) -> float:
    return perplexity(subject.model, tokens, batch=8).value


def prune(subject: DecoderModel, tokens: Tensor) -> str:
    """Digest of all masks under a uniform plan."""
    context = AllocationContext(subject, Wanda(), 0.7, Rules.EXACT, tokens, 8, QuietProgress())
    allotments = context.allot(uniform_plan(subject, 0.7))
    masks = prune_model(subject, Wanda(), allotments, tokens, 8, QuietProgress()).masks
    digest = hashlib.sha256()
    for key in masks:
        digest.update(masks.bits(key).numpy().tobytes())
    return digest.hexdigest()


def timed(subject: Callable[[], DecoderModel], work: Work, tokens: Tensor) -> dict[str, Any]:
    """What one stage takes, and what it finds; making the model does not count."""
    made = subject()
    reset_peak()
    begin = now()
    with HostPeak() as host:
        found = work(made, tokens)
    seconds = now() - begin
    return {
        "windows": len(tokens),
        "seqlen": tokens.shape[1],
        "seconds": seconds,
        "peak_gib": peak_gib(),
        "host_gib": round(host.peak, 2),
        "found": found,
    }


class HostPeak:
    """Host memory of this process while inside, in GiB; files mapped from disk do not count."""

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
