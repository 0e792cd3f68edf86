"""2:4 models through the GPU's sparse kernels: memory and speed against dense."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from bench.common import (
    DEVICE,
    Store,
    free_memory,
    median_seconds,
    random_llama,
    random_tokens,
)
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.budget import Rules, allot
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruning import prune_model
from neuroal.topups.uniform import uniform_plan
from neuroal.tracking import QuietProgress

BATCHES = ((1, 1), (1, 128), (1, 2048), (8, 2048))
"""Windows and tokens a window of one forward pass."""
WAYS = ("dense", "cusparselt")
"""(PyTorch's other sparse kernels, those of CUTLASS, refuse GPUs of compute capability 9.)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(store: Store, arguments: argparse.Namespace) -> None:
    for way in WAYS:
        name = f"semi-structured-{way}-{arguments.shape}-{arguments.dtype}"
        store.measure(name, lambda way=way: measure(arguments, way))


def measure(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Memory and speed of a model that is pruned to 2:4."""
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks)
    allotments = allot(uniform_plan(subject, 0.5), subject, Rules.EXACT, 4)
    prune_model(subject, Magnitude(), allotments, random_tokens(8, 2048), 8, QuietProgress())
    block = [(copy.deepcopy(linear.module), linear.cols) for linear in subject.linears[0]]
    if way != "dense":
        for module in [*(part for part, _ in block), *(linear.module for linear in subject)]:
            weight = to_sparse_semi_structured(module.weight.detach().contiguous())
            module.weight = nn.Parameter(weight, requires_grad=False)
    linears = {_name(*size): 1e3 * linears_seconds(block, *size) for size in BATCHES}
    del block
    free_memory()
    return {
        "gib": torch.cuda.memory_allocated() / 2**30,
        "linears_ms": linears,
        "forward_ms": {_name(*size): 1e3 * forward_seconds(subject, *size) for size in BATCHES},
    }


def _name(windows: int, seqlen: int) -> str:
    return f"{windows}x{seqlen}"


def forward_seconds(subject: DecoderModel, windows: int, seqlen: int) -> float:
    """A forward pass through the blocks, launched from Python as `transformers` does."""
    tokens = random_tokens(windows, seqlen).to(subject.device)

    @torch.no_grad()
    def work() -> None:
        subject.model.base_model(tokens, use_cache=False)

    return median_seconds(work, 10)


@torch.no_grad()
def linears_seconds(block: Sequence[tuple[nn.Module, int]], windows: int, seqlen: int) -> float:
    """The products of one block alone, as a CUDA graph: nothing waits for the host.

    Args:
        block: linears, and how many columns each has.
        windows: in one forward pass.
        seqlen: tokens of a window.
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
