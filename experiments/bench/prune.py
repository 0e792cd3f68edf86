"""Pruning by a uniform plan, each pruner."""

from __future__ import annotations

import argparse
from typing import Any

from torch import Tensor

from bench.common import (
    Store,
    compile_seconds,
    matrix_rate,
    now,
    peak_gib,
    products,
    random_llama,
    random_tokens,
    redraw,
    reset_peak,
)
from bench.search import PRUNERS
from neuroal.memory import batch_by_memory
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.budget import Rules, allot
from neuroal.pruning import prune_model
from neuroal.topups.uniform import uniform_plan
from neuroal.tracking import QuietProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument(
        "--pruners", nargs="+", choices=PRUNERS, default=["magnitude", "wanda", "multiflow"]
    )


def main(store: Store, arguments: argparse.Namespace) -> None:
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    depth = f"-{arguments.blocks}blocks" if arguments.blocks else ""
    for name in arguments.pruners:
        store.measure(
            f"prune-{name}-{arguments.shape}{depth}-{arguments.dtype}",
            lambda name=name: prune(subject, tokens, name, arguments),
        )


def prune(
    subject: DecoderModel, tokens: Tensor, name: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    redraw(subject)
    pruner = PRUNERS[name]()
    batch = batch_by_memory(subject, *tokens.shape)
    compiling = compile_seconds(subject, pruner, tokens[:batch], pruner.needs, arguments.sparsity)
    reset_peak()
    begin = now()
    allotments = allot(uniform_plan(subject, arguments.sparsity), subject, Rules.EXACT)
    pruned = prune_model(subject, pruner, allotments, tokens, batch, QuietProgress())
    seconds = now() - begin
    runs = products(subject, tokens, last=True) + products(subject, tokens, last=False)
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "floor_seconds": runs / matrix_rate(arguments.dtype) if pruner.needs else None,
        "blocks": len(subject),
        "windows": len(tokens),
        "batch": batch,
        "sparsity": pruned.sparsity,
        "peak_gib": peak_gib(),
    }
