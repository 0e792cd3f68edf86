"""Time pruning by a uniform plan, for each pruner."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from torch import Tensor

from bench.common import (
    Store,
    free_memory,
    now,
    peak_gib,
    reset_peak,
    seconds_of,
)
from bench.models import (
    llama_config,
    matrix_rate,
    products,
    random_llama,
    random_tokens,
    redraw,
    shape_name,
)
from bench.search import PRUNERS
from neuroal.execution.memory import batch_by_memory
from neuroal.execution.oom import AdaptiveBatch
from neuroal.kernels.input_statistics import Need
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import prune_model
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument(
        "--pruners", nargs="+", choices=PRUNERS, default=["magnitude", "wanda", "multiflow"]
    )


def main(store: Store, arguments: argparse.Namespace) -> None:
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    shape = shape_name(arguments.shape, arguments.blocks)
    for name in arguments.pruners:
        store.measure(
            f"prune-{name}-{shape}-{arguments.dtype}",
            partial(prune, decoder, tokens, name, arguments),
        )


def prune(
    decoder: DecoderModel, tokens: Tensor, name: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Time one pruning of dense random weights; kernels are compiled before.

    `masks_seconds` is the time to bring the masks to the host afterwards.
    """
    redraw(decoder)
    pruner = PRUNERS[name]()
    batch = AdaptiveBatch("prune", batch_by_memory(decoder, *tokens.shape), divides=True)
    compiling = _warm_up(pruner, tokens[: batch.size], arguments)
    reset_peak()
    begin = now()
    masks = _pruned(decoder, pruner, tokens, batch, arguments.sparsity)
    seconds = now() - begin
    begin = now()
    sparsity = masks.sparsity  # brings the masks to the host
    masks_seconds = now() - begin
    # A Gram matrix and its factor take more than the products of the blocks.
    only_products = pruner.needs and Need.GRAM not in pruner.needs
    runs = products(decoder, tokens, last=True) + products(decoder, tokens, last=False)
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "floor_seconds": runs / matrix_rate(arguments.dtype) if only_products else None,
        "blocks": len(decoder),
        "windows": len(tokens),
        "batch": batch.size,
        "sparsity": sparsity,
        "masks_seconds": masks_seconds,
        "peak_gib": peak_gib(),
    }


def _warm_up(pruner: Pruner, tokens: Tensor, arguments: argparse.Namespace) -> float:
    """Prune two blocks twice; return the seconds of the first time minus those of the second.

    This compiles the graph that all blocks of the process share, and every kernel of a pruning.
    """
    blocks = random_llama(llama_config(arguments.shape, arguments.dtype, 2))
    batch = AdaptiveBatch("prune", len(tokens), divides=True)
    work = partial(_pruned, blocks, pruner, tokens, batch, arguments.sparsity)
    seconds = seconds_of(work) - seconds_of(work)
    del blocks, work
    free_memory()
    return seconds


def _pruned(
    decoder: DecoderModel, pruner: Pruner, tokens: Tensor, batch: AdaptiveBatch, sparsity: float
) -> PackedMasks:
    budgets = linear_budgets(uniform_plan(decoder, sparsity), decoder, Rules.EXACT)
    return prune_model(decoder, pruner, budgets, tokens, batch, QuietProgress())
