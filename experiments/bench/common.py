"""Random models of a given shape, clocks, and a folder with one JSON for each measurement."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from neuroal.blocks import BlockRunner
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules, allot
from neuroal.records.identity import environment
from neuroal.statistics import InputStatistics, Need
from neuroal.topups.uniform import uniform_plan

RESULTS = Path(__file__).resolve().parents[2] / "results" / "benchmark"
SHAPES = {
    "7b": (32, 4096, 11008, 32),
    "30b": (60, 6656, 17920, 52),
    "1b": (16, 2048, 5632, 16),
    "tiny": (3, 64, 96, 4),
}
"""Blocks, width, width inside the MLP, heads. (Three blocks: two of them fit beside each other.)"""
VOCABULARY = 32000
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Store:
    """One JSON file a measurement; what is there is not measured again unless `again`."""

    folder: Path
    again: bool = False

    def measure(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """The result of `work`, under `name`; None if it fails, which stops nothing else."""
        path = self.folder / f"{name}.json"
        if path.exists() and not self.again:
            print(f"{name}: kept", flush=True)
            return dict(json.loads(path.read_text()))
        free_memory()
        start = time.perf_counter()
        try:
            found = work()
        except Exception:
            traceback.print_exc()
            print(f"{name}: FAILED", file=sys.stderr, flush=True)
            return None
        where = environment(DEVICE)
        found = {
            "name": name,
            **found,
            "device": where["device"],
            "packages": where["packages"],
            "date": str(date.today()),
            "command": " ".join(["python experiments/benchmark.py", *sys.argv[1:]]),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        short = {
            k: v for k, v in found.items() if k not in ("packages", "command", "report", "found")
        }
        print(f"{name} ({time.perf_counter() - start:.0f} s): {json.dumps(short)}", flush=True)
        return found

    def all(self) -> Iterator[dict[str, Any]]:
        """Every result in the folder."""
        for path in sorted(self.folder.glob("*.json")):
            found = json.loads(path.read_text())
            if "name" in found:
                yield found


def free_memory() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def now() -> float:
    """Seconds, once the GPU has done what it was told."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(work: Callable[[], Any], repeat: int = 5) -> float:
    """Median of `repeat` runs, after one that warms up."""
    work()
    found = []
    for _ in range(repeat):
        start = now()
        work()
        found.append(now() - start)
    return statistics.median(found)


def more_at_first(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes more for the first time than for the second: to compile."""
    spent = []
    for _ in range(2):
        begin = now()
        work()
        spent.append(now() - begin)
    return spent[0] - spent[1]


def compile_seconds(
    subject: DecoderModel,
    pruner: Pruner,
    tokens: Tensor,
    needs: frozenset[Need],
    sparsity: float = 0.7,
) -> float:
    """Seconds that a block takes more for the first time than for the second.

    It is run where there are `needs`, and pruned, as a search and a pruning do it, so that none of
    their kernels is compiled later; its weights stay as they are.
    """
    allotments = allot(uniform_plan(subject, sparsity), subject, Rules.EXACT)

    def work() -> None:
        statistics: Mapping[str, InputStatistics] = {}
        for index, linears in subject.walk():
            if needs:
                runner = BlockRunner.capture(subject, tokens, len(tokens))
                _, statistics = runner.measure(index, runner.embedded, needs, outputs=False)
                runner.run(index, runner.embedded)
            for linear in linears:
                weight, found = linear.module.weight.data, statistics.get(linear.key)
                pruner.pruned_weight(weight, found, allotments[linear.key])
                pruner.prune(weight, found, allotments[linear.key])
            break

    return more_at_first(work)


def reset_peak() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """Most memory that tensors took since `reset_peak`."""
    if DEVICE.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def random_llama(shape: str, dtype: str, blocks: int | None = None) -> DecoderModel:
    """LLaMA of `shape` with random weights, made on the device."""
    depth, width, inner, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks or depth,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        dtype=dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with DEVICE:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return DecoderModel(model.eval().requires_grad_(False))


@torch.no_grad()
def redraw(subject: DecoderModel) -> None:
    """Dense random weights again, where a measurement has pruned them."""
    generator = torch.Generator(DEVICE).manual_seed(1)
    for linear in subject:
        linear.module.weight.data.normal_(0, 0.02, generator=generator)


def random_tokens(windows: int, seqlen: int) -> Tensor:
    """Token ids (windows, seqlen)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (windows, seqlen), generator=generator)


def matrix_rate(dtype: str) -> float:
    """Floating-point operations a second of a large matrix product in `dtype`."""
    size = 8192 if DEVICE.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=DEVICE, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, 20)


def products(subject: DecoderModel, tokens: Tensor, *, last: bool) -> float:
    """Floating-point operations of the linears and the (causal) attention of one pass.

    Args:
        subject: the model.
        tokens: windows (windows, seqlen).
        last: whether the last linear of every block is computed.
    """
    count, seqlen = tokens.numel(), tokens.shape[1]
    total = 0.0
    for linears in subject.linears:
        counted = linears if last else linears[:-1]
        total += 2 * count * sum(linear.numel for linear in counted)
        total += 2 * count * seqlen * linears[0].cols
    return total
