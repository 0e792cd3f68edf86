"""Compare memory and speed of 2:4 models with sparse and with dense kernels of the GPU."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from bench.common import DEVICE, Store, free_memory, median_seconds
from bench.models import llama_config, random_llama, random_tokens
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.prune_model import prune_model
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress

BATCHES = ((1, 1), (1, 128), (1, 2048), (8, 2048))
"""Windows and tokens per window of one forward pass."""
WAYS = ("dense", "cusparselt")
"""PyTorch's CUTLASS kernels are missing, because they do not support compute capability 9."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(store: Store, arguments: argparse.Namespace) -> None:
    for way in WAYS:
        name = f"semi-structured-{way}-{arguments.shape}-{arguments.dtype}"
        store.measure(name, partial(measure, arguments, way))


def measure(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Measure memory and speed of a model that is pruned to 2:4."""
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    budgets = linear_budgets(uniform_plan(decoder, 0.5), decoder, Rules.EXACT, 4)
    batch = AdaptiveBatch("prune", 8, divides=True)
    prune_model(decoder, Magnitude(), budgets, random_tokens(8, 2048), batch, QuietProgress())
    block = [(copy.deepcopy(linear.module), linear.cols) for linear in decoder.linears[0]]
    if way != "dense":
        for module in [*(part for part, _ in block), *(linear.module for linear in decoder)]:
            weight = to_sparse_semi_structured(module.weight.detach().contiguous())
            module.weight = nn.Parameter(weight, requires_grad=False)
    linears = {_name(*size): 1e3 * linears_seconds(block, *size) for size in BATCHES}
    del block
    free_memory()
    return {
        "gib": torch.cuda.memory_allocated() / 2**30,
        "linears_ms": linears,
        "forward_ms": {_name(*size): 1e3 * forward_seconds(decoder, *size) for size in BATCHES},
    }


def _name(windows: int, seqlen: int) -> str:
    return f"{windows}x{seqlen}"


def forward_seconds(decoder: DecoderModel, windows: int, seqlen: int) -> float:
    """Time a forward pass through the blocks, launched from Python as `transformers` does."""
    tokens = random_tokens(windows, seqlen).to(decoder.device)

    @torch.no_grad()
    def work() -> None:
        decoder.model.base_model(tokens, use_cache=False)

    return median_seconds(work, 10)


@torch.no_grad()
def linears_seconds(block: Sequence[tuple[nn.Module, int]], windows: int, seqlen: int) -> float:
    """Time the products of one block as a CUDA graph, so that nothing waits for the host.

    `block` holds linears with their number of columns.
    """
    dtype = next(block[0][0].parameters()).dtype
    inputs = {
        cols: torch.randn(windows, seqlen, cols, device=DEVICE, dtype=dtype)
        for cols in {cols for _, cols in block}
    }

    def work() -> None:
        for module, cols in block:
            module(inputs[cols])

    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return median_seconds(graph.replay, 10)
