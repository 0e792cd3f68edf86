"""Divide the GPU's time of each stage into products, attention, selection, statistics and rest."""

from __future__ import annotations

import argparse
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench.common import DEVICE, Store, now, seconds_of
from bench.models import allocation_context, llama_config, random_llama, random_tokens, redraw
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import Pruner
from neuroal.pruners.prune_model import prune_model
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.base import TopUp
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.tracking import QuietProgress

KINDS = {
    "attention": r"sdpa|flash|fmha|attention",
    "products": r"nvjet|gemm|cutlass|xmma|splitk|trsm|potr|syrk|magma|cusolver",
    "selection": r"_select_rows|_histogram|_zeroed|_band_sums|_mask|_eliminate|_count_|_prefix"
    r"|_pack|_differs|sort|gather|scatter",
    "statistics": r"_square_sums|reduce_kernel",
}
"""Pattern of the names of kernels by kind, the first that matches; `rest` is all other work.

`rest` has the element-wise parts of a block (norms, rotations, gates, sums) and copies, and `idle`
is the time in which no kernel runs: launches and waiting for the host.
"""
PARTS = (*KINDS, "rest", "idle")
SPARSITY = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=32, help="of pruning")
    parser.add_argument("--seqlen", type=int, default=2048)


def main(store: Store, arguments: argparse.Namespace) -> None:
    if DEVICE.type != "cuda":
        raise SystemExit("profile: needs a GPU, whose kernels it times")
    blocks = arguments.blocks or 4
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, blocks))
    few, many = (random_tokens(count, arguments.seqlen) for count in (8, arguments.windows))
    work: dict[str, Callable[[], Any]] = {
        "search, Wanda": partial(_allocate, decoder, _neuroal("both"), Wanda(), few),
        "search, SparseGPT": partial(_allocate, decoder, _neuroal("block"), SparseGPT(), few),
        "fisher": partial(_allocate, decoder, Fisher(rounds=2), Wanda(), few),
        "marginal": partial(
            _allocate, decoder, EqualMarginals(row_iterations=4, windows=8), Wanda(), few
        ),
        "pruning, Wanda": partial(_prune, decoder, Wanda(), many),
        "pruning, SparseGPT": partial(_prune, decoder, SparseGPT(), many),
    }
    for name, stage in work.items():
        subject = re.sub(r"\W+", "-", name.lower())
        figures = {"stage": name, "blocks": blocks, "shape": arguments.shape}
        store.measure(
            f"profile-{subject}-{arguments.shape}-{arguments.dtype}",
            lambda stage=stage, figures=figures: {**figures, **shares(stage)},
        )


def shares(work: Callable[[], Any]) -> dict[str, Any]:
    """Return the seconds of `work`, and the share of each part of the GPU's time."""
    work()
    seconds = seconds_of(work)
    begin = now()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        profiled_seconds = now() - begin
    kernels = [
        (event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profiled.events()
        if event.device_type.name == "CUDA"
    ]
    return {"seconds": seconds, "profiled_seconds": profiled_seconds, **by_kind(kernels)}


def by_kind(kernels: Iterable[tuple[str, float, float]]) -> dict[str, Any]:
    """Return the shares of each part of the time from the first to the last of `kernels`.

    `longest` has the shares of single kernels, and `gaps` the longest times without one: seconds,
    and the kernels before and after.

    Args:
        kernels: name, begin and end of each. Of kernels that run at the same time, the time of the
            later one counts from the end of the earlier.
    """
    parts, names = dict.fromkeys(PARTS, 0.0), defaultdict[str, float](float)
    ordered = sorted(kernels, key=lambda kernel: kernel[1])
    first = end = ordered[0][1]
    gaps, last = list[tuple[float, str, str]](), ""
    for name, begin, stop in ordered:
        parts["idle"] += max(begin - end, 0)
        gaps.append((begin - end, last, name[:60]))
        if stop > end:
            last = name[:60]
        alone = max(stop - max(begin, end), 0)
        parts[kind_of(name)] += alone
        names[name.partition("<")[0][:60]] += alone
        end = max(end, stop)
    longest = sorted(names.items(), key=lambda item: -item[1])[:12]
    return {
        "shares": {part: seconds / (end - first) for part, seconds in parts.items()},
        "longest": {name: seconds / (end - first) for name, seconds in longest},
        "gaps": sorted(gaps, reverse=True)[:12],
    }


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel by its name."""
    return next((kind for kind, names in KINDS.items() if re.search(names, kernel)), "rest")


def _neuroal(step: str) -> NeuroAL:
    return NeuroAL(step=step, block_candidates=[0.05, 0.2], row_candidates=[0.05, 0.2])


def _allocate(decoder: DecoderModel, topup: TopUp, pruner: Pruner, tokens: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        topup.allocate(allocation_context(decoder, pruner, SPARSITY, tokens, 8))


def _prune(decoder: DecoderModel, pruner: Pruner, tokens: Tensor) -> None:
    redraw(decoder)
    budgets = allocation_context(decoder, pruner, SPARSITY, tokens).budgets(
        uniform_plan(decoder, SPARSITY)
    )
    batch = AdaptiveBatch("prune", 8, divides=True)
    prune_model(decoder, pruner, budgets, tokens, batch, QuietProgress())
