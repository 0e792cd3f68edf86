"""Time NeuroAL's search: exact, uncompiled and adaptive."""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.common import Store, compile_seconds, median_seconds, now, peak_gib, reset_peak
from bench.models import (
    allocation_context,
    llama_config,
    matrix_rate,
    products,
    random_llama,
    random_tokens,
    shape_name,
)
from neuroal.execution.compile import ENOUGH_WORK, CompiledBlocks
from neuroal.kernels.input_statistics import Need
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.topups.neuroal import NeuroAL

PRUNERS: dict[str, type[Pruner]] = {
    "magnitude": Magnitude,
    "wanda": Wanda,
    "multiflow": Multiflow,
    "sparsegpt": SparseGPT,
    "alps": ALPS,
}
VARIANTS = ("exact", "exact-uncompiled", "adaptive")
CANDIDATES = 29


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--pruner", choices=PRUNERS, default="wanda")
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)


def main(store: Store, arguments: argparse.Namespace) -> None:
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    shape = shape_name(arguments.shape, arguments.blocks)
    suffix = f"{shape}-{arguments.pruner}-{arguments.dtype}"

    def dense() -> dict[str, Any]:
        rate = matrix_rate(arguments.dtype)
        pair = products(decoder, tokens, last=True) + products(decoder, tokens, last=False)
        return {
            "forward_seconds": forward_seconds(decoder, tokens),
            "matrix_rate": rate,
            "floor_seconds": CANDIDATES * pair / rate,
        }

    store.measure(f"dense-{suffix}", dense)
    for variant in arguments.variants:
        store.measure(
            f"search-{variant}-{suffix}", partial(search, decoder, tokens, arguments, variant)
        )


def forward_seconds(decoder: DecoderModel, tokens: Tensor) -> float:
    """Time one pass of plain eager `transformers` through the blocks, all windows in one batch."""
    base, inputs = decoder.model.base_model, tokens.to(decoder.device)

    @torch.no_grad()
    def work() -> None:
        base(inputs, use_cache=False)

    return median_seconds(work)


def search(
    decoder: DecoderModel, tokens: Tensor, arguments: argparse.Namespace, variant: str
) -> dict[str, Any]:
    """Time both steps of a search; compilation is timed before."""
    name, _, uncompiled = variant.partition("-")
    decoder.memo["compiled"] = CompiledBlocks(least_work=math.inf if uncompiled else ENOUGH_WORK)
    pruner = PRUNERS[arguments.pruner]()
    context = allocation_context(decoder, pruner, arguments.sparsity, tokens)
    compiling = compile_seconds(
        decoder, pruner, tokens, pruner.needs | {Need.NORM}, arguments.sparsity
    )
    NeuroAL(step="block", block_candidates=[0.1]).allocate(context)  # warm up the allocator
    reset_peak()
    begin = now()
    report = NeuroAL(search=name).allocate(context).report
    seconds = now() - begin
    measured = [report["criterion_block"], report.get("criterion_row", [])]
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "compiled": decoder.memo["compiled"].runs > 0,
        "candidates": sum(map(len, measured)),
        "complete": sum(value is not None for criteria in measured for value in criteria),
        "lambda_block": report["lambda_block"],
        "lambda_row": report.get("lambda_row"),
        "peak_gib": peak_gib(),
        "report": report,
    }
