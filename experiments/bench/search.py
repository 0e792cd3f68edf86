"""The search: every criterion, early out, adaptive; compiled and not; the authors' way beside."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor

from bench.authors import candidate_seconds
from bench.common import (
    Store,
    compile_seconds,
    matrix_rate,
    median_seconds,
    now,
    peak_gib,
    products,
    random_llama,
    random_tokens,
    reset_peak,
)
from neuroal.compiled import ENOUGH_WORK, CompiledBlocks
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.statistics import Need
from neuroal.topups.base import AllocationContext
from neuroal.topups.neuroal import NeuroAL
from neuroal.tracking import QuietProgress

PRUNERS: dict[str, type[Pruner]] = {
    "magnitude": Magnitude,
    "wanda": Wanda,
    "multiflow": Multiflow,
    "sparsegpt": SparseGPT,
}
VARIANTS = ("exact", "exact-uncompiled", "early_out", "adaptive", "authors")
CANDIDATES = 29


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--pruner", choices=PRUNERS, default="wanda")
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)


def main(store: Store, arguments: argparse.Namespace) -> None:
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    suffix = f"{arguments.shape}-{arguments.pruner}-{arguments.dtype}"

    def dense() -> dict[str, Any]:
        rate = matrix_rate(arguments.dtype)
        pair = products(subject, tokens, last=True) + products(subject, tokens, last=False)
        return {
            "forward_seconds": forward_seconds(subject, tokens),
            "matrix_rate": rate,
            "floor_seconds": CANDIDATES * pair / rate,
        }

    store.measure(f"dense-{suffix}", dense)
    for variant in arguments.variants:
        if variant == "authors":
            store.measure(f"search-authors-{suffix}", lambda: authors(subject, tokens, arguments))
        else:
            store.measure(
                f"search-{variant}-{suffix}",
                lambda variant=variant: search(subject, tokens, arguments, variant),
            )


def forward_seconds(subject: DecoderModel, tokens: Tensor) -> float:
    """One pass of plain eager `transformers` through the blocks, all windows in one batch."""
    base, there = subject.model.base_model, tokens.to(subject.device)

    @torch.no_grad()
    def work() -> None:
        base(there, use_cache=False)

    return median_seconds(work)


def search(
    subject: DecoderModel, tokens: Tensor, arguments: argparse.Namespace, variant: str
) -> dict[str, Any]:
    """Both steps; compiling is done, and timed, before."""
    name, _, uncompiled = variant.partition("-")
    subject.compiled = CompiledBlocks(least_work=math.inf if uncompiled else ENOUGH_WORK)
    pruner = PRUNERS[arguments.pruner]()
    context = AllocationContext(
        subject=subject,
        pruner=pruner,
        sparsity=arguments.sparsity,
        rules=Rules.EXACT,
        tokens=tokens,
        batch=len(tokens),
        progress=QuietProgress(),
    )
    compiling = compile_seconds(
        subject, pruner, tokens, pruner.needs | {Need.NORM}, arguments.sparsity
    )
    NeuroAL(step="block", block_candidates=[0.1]).allocate(context)  # memory
    reset_peak()
    begin = now()
    report = NeuroAL(search=name).allocate(context).report
    seconds = now() - begin
    measured = [report["criterion_block"], report.get("criterion_row", [])]
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "compiled": subject.compiled.runs > 0,
        "candidates": sum(len(found) for found in measured),
        "complete": sum(value is not None for found in measured for value in found),
        "lambda_block": report["lambda_block"],
        "lambda_row": report.get("lambda_row"),
        "peak_gib": peak_gib(),
        "report": report,
    }


def authors(subject: DecoderModel, tokens: Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """As the authors' code goes about it, for two candidates; the whole search is extrapolated."""
    subject.compiled = CompiledBlocks(least_work=math.inf)
    reset_peak()
    begin = time.perf_counter()
    each = [candidate_seconds(subject, tokens, s) for s in (arguments.sparsity, 0.5)]
    return {
        "seconds_a_candidate": each,
        "extrapolated_seconds": CANDIDATES * min(each),
        "spent": time.perf_counter() - begin,
        "peak_gib": peak_gib(),
        "note": "Wanda, equal counts in all rows; the row step's own selection is not imitated",
    }
