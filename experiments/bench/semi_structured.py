"""2:4 models through the GPU's sparse kernels: memory and speed against dense."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from torch.sparse import to_sparse_semi_structured

from bench.common import (
    Store,
    median_seconds,
    now,
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(store: Store, arguments: argparse.Namespace) -> None:
    store.measure(
        f"semi-structured-{arguments.shape}-{arguments.dtype}", lambda: compare(arguments)
    )


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks)
    allotments = allot(uniform_plan(subject, 0.5), subject, Rules.EXACT, 4)
    tokens = random_tokens(8, 2048)
    prune_model(subject, Magnitude(), allotments, tokens, 8, QuietProgress())
    dense, before = forwards(subject), torch.cuda.memory_allocated()
    begin = now()
    for linear in subject:
        weight = to_sparse_semi_structured(linear.module.weight.detach().contiguous())
        linear.module.weight = nn.Parameter(weight, requires_grad=False)
    converted = now() - begin
    after = torch.cuda.memory_allocated()
    sparse = forwards(subject)
    return {
        "dense_ms": dense,
        "sparse_ms": sparse,
        "speed_up": {key: dense[key] / sparse[key] for key in dense},
        "dense_gib": before / 2**30,
        "sparse_gib": after / 2**30,
        "convert_seconds": converted,
    }


def forwards(subject: DecoderModel) -> dict[str, float]:
    """Milliseconds of a forward pass through the blocks."""
    found = {}
    for windows, seqlen in BATCHES:
        tokens = random_tokens(windows, seqlen).to(subject.device)

        @torch.no_grad()
        def work(tokens: torch.Tensor = tokens) -> None:
            subject.model.base_model(tokens, use_cache=False)

        found[f"{windows}x{seqlen}"] = 1e3 * median_seconds(work, 10)
    return found
