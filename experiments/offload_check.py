"""What offloading costs in time and gains in memory, at the size of LLaMA-7B and LLaMA-30B.

    python experiments/offload_check.py                      # all measurements
    python experiments/offload_check.py 7b-none 7b-blocks    # some of them

Random weights, float16; Wanda at 70 %; 8 windows of 2048 tokens for a search of two block and two
row candidates (one and one at 30B), 128 windows (32 at 30B) for pruning, 32 for a perplexity.
(``7b-disk`` writes a checkpoint of 13.5 GB to the system's temporary folder first.)
Prints one line for each stage and, last, a table: seconds, ratio to the same stage with all weights
on the GPU, peak of the allocated memory with its target, and whether criteria, masks and perplexity
are the same as there.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

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

GIB = 2**30
SHAPES = {  # blocks, width, width of the MLP, heads
    "7b": (32, 4096, 11008, 32),
    "30b": (60, 6656, 17920, 52),
    "tiny": (3, 64, 96, 4),
}
TARGETS = {  # peak GiB, seconds as a multiple of those without offloading
    "7b-none": {"search": (17, None), "prune": (18, None), "perplexity": (None, None)},
    "7b-blocks": {"search": (5, 1.3), "prune": (5, 1.3), "perplexity": (5, 1.3)},
    "7b-disk": {"search": (5, None), "prune": (5, None), "perplexity": (5, None)},
    "30b-blocks": {"search": (24, None), "prune": (24, None), "perplexity": (24, None)},
    "tiny-none": {},
    "tiny-blocks": {},
    "tiny-disk": {},
}


@dataclass(frozen=True)
class Row:
    """One stage of one measurement."""

    name: str
    stage: str
    seconds: float
    peak: float
    host: float
    found: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name for name in TARGETS if not name.startswith("tiny")]
    parser.add_argument("measurements", nargs="*", default=names, help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--windows", type=int, help="for pruning (128; 32 at 30B)")
    parser.add_argument("--seqlen", type=int, default=2048)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    for name in arguments.measurements:
        shape, offload = name.rsplit("-", 1)
        windows = arguments.windows or (32 if shape == "30b" else 128)
        rows += measure(name, shape, offload, windows, arguments.seqlen, device)
        gc.collect()
    print(table(rows))


def measure(
    name: str, shape: str, offload: str, windows: int, seqlen: int, device: torch.device
) -> list[Row]:
    """All stages on one model."""
    begin = time.perf_counter()
    with TemporaryDirectory() as folder:
        model = random_llama(shape, offload, device, Path(folder))
        print(f"{name}: made in {time.perf_counter() - begin:.1f} s", flush=True)
        return measure_model(name, shape, model, windows, seqlen, device)


def measure_model(
    name: str,
    shape: str,
    model: PreTrainedModel,
    windows: int,
    seqlen: int,
    device: torch.device,
) -> list[Row]:
    subject = DecoderModel(model)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.config.vocab_size, (windows, seqlen), generator=generator)
    few = [0.1] if shape == "30b" else [0.05, 0.2]
    stages: dict[str, Callable[[], Any]] = {
        "warm-up": lambda: search(subject, tokens[:8], NeuroAL("block", block_candidates=[0.1])),
        "search": lambda: search(
            subject, tokens[:8], NeuroAL(block_candidates=few, row_candidates=few)
        ),
        "perplexity": lambda: perplexity(model, tokens[:32], batch=8).value,
        "prune": lambda: prune(subject, tokens),
    }
    return [
        timed(name, stage, work, device)
        for stage, work in stages.items()
        if not (stage == "warm-up" and shape == "30b")
    ]


def random_llama(shape: str, offload: str, device: torch.device, folder: Path) -> PreTrainedModel:
    """A LLaMA of that shape; all blocks begin with the same random weights.

    With ``disk`` it is first written to `folder`.
    """
    blocks, hidden, inner, heads = SHAPES[shape]
    config = LlamaConfig(
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


def search(subject: DecoderModel, tokens: Tensor, topup: NeuroAL) -> Any:
    """Criteria of all candidates."""
    context = AllocationContext(
        subject, Wanda(), 0.7, Rules.EXACT, tokens, len(tokens), QuietProgress()
    )
    report = topup.allocate(context).report
    return [report["criterion_block"], report.get("criterion_row")]


def prune(subject: DecoderModel, tokens: Tensor) -> str:
    """Digest of all masks under a uniform plan."""
    context = AllocationContext(subject, Wanda(), 0.7, Rules.EXACT, tokens, 8, QuietProgress())
    allotments = context.allot(uniform_plan(subject, 0.7))
    masks = prune_model(subject, Wanda(), allotments, tokens, 8, QuietProgress()).masks
    digest = hashlib.sha256()
    for key in masks:
        digest.update(masks.bits(key).numpy().tobytes())
    return digest.hexdigest()


def timed(name: str, stage: str, work: Callable[[], Any], device: torch.device) -> Row:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    with HostPeak() as host:
        found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else 0.0
    print(f"{name} {stage}: {seconds:.1f} s, {peak:.2f} GiB, host {host.peak:.1f} GiB", flush=True)
    return Row(name, stage, seconds, peak, host.peak, found)


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
            self.peak = max(self.peak, sum(held) * 1024 / GIB)
            if self._done.wait(0.1):
                return


def table(rows: list[Row]) -> str:
    """Markdown: each stage beside the same without offloading, where that was measured."""
    lines = [
        "| | stage | seconds | ratio (target) | peak GiB (target) | host GiB | same result |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {(row.name, row.stage): row for row in rows}
    for row in rows:
        if row.stage == "warm-up":
            continue
        plain = known.get((f"{row.name.rsplit('-', 1)[0]}-none", row.stage))
        most, slowest = TARGETS[row.name].get(row.stage, (None, None))
        ratio, same = "–", "–"
        if plain is not None and plain is not row:
            ratio = f"{row.seconds / plain.seconds:.2f}" + (f" (≤ {slowest})" if slowest else "")
            same = alike(row.found, plain.found)
        peak = f"{row.peak:.2f}" + (f" (≤ {most})" if most else "")
        figures = (f"{row.seconds:.1f}", ratio, peak, f"{row.host:.1f}", same)
        lines.append(" | ".join([f"| {row.name}", row.stage, *figures]) + " |")
    return "\n".join(lines)


def alike(found: Any, wanted: Any) -> str:
    """``yes`` if equal, else by how much numbers differ."""
    if found == wanted:
        return "yes"
    if isinstance(found, float):
        return f"to {abs(found / wanted - 1):.0e}"
    if isinstance(found, str):
        return "no"
    pairs = [pair for a, b in zip(found, wanted, strict=True) for pair in zip(a, b, strict=True)]
    return f"to {max(abs(a / b - 1) for a, b in pairs):.0e}"


if __name__ == "__main__":
    main()
