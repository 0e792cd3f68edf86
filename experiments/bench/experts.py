"""Time pruning a block of experts and a dense block that does as many products for a token.

Both have the same attention, which runs but stays dense. Only weights that are pruned count.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, MixtralConfig, PretrainedConfig

from bench.common import Store, free_memory, now, peak_gib, reset_peak, seconds_of
from bench.models import VOCABULARY, random_model, random_tokens, redraw
from bench.search import PRUNERS
from neuroal.execution.oom import AdaptiveBatch
from neuroal.execution.replay import Replay
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.prune_model import prune_model
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking import QuietProgress

LEAST = 0.5
"""Weights per second of experts, as a share of those of a dense block: the target."""
HEAD = 128
"""Width of an attention head."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=14336, help="inner width of an expert")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top", type=int, default=2, help="experts of a token")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument("--repeat", type=int, default=5, help="the median counts")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--pruner", choices=PRUNERS, default="wanda")


def main(store: Store, arguments: argparse.Namespace) -> None:
    name = f"experts-{arguments.pruner}-{size_of(arguments)}-{arguments.dtype}"
    results = {
        kind: store.measure(f"{name}-{kind}", partial(measure, config, arguments))
        for kind, config in configurations(arguments).items()
    }
    dense, routed = results["dense"], results["routed"]
    if dense is None or routed is None:
        return
    print(f"\n{'block':<8}{'weights':>10}{'linears':>9}{'seconds':>9}{'weights/s':>12}{'GiB':>8}")
    for kind, result in results.items():
        assert result is not None
        print(
            f"{kind:<8}{result['weights'] / 1e6:>9.0f}M{result['linears']:>9}"
            f"{result['seconds']:>9.4f}{result['weights_per_second'] / 1e9:>11.3f}G"
            f"{result['peak_gib'] or 0:>8.2f}"
        )
    ratio = routed["weights_per_second"] / dense["weights_per_second"]
    print(f"routed ÷ dense: {ratio:.2f} (at least {LEAST})", flush=True)


def size_of(arguments: argparse.Namespace) -> str:
    """Return the size of the experts as text, such as ``8x14336x4096-top2``."""
    return f"{arguments.experts}x{arguments.inner}x{arguments.hidden}-top{arguments.top}"


def configurations(arguments: argparse.Namespace) -> dict[str, PretrainedConfig]:
    """Return the configuration of both models."""
    heads = max(arguments.hidden // HEAD, 1)
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": arguments.hidden,
        "num_hidden_layers": arguments.blocks or 1,
        "num_attention_heads": heads,
        "num_key_value_heads": max(heads // 4, 1),
        "max_position_embeddings": arguments.seqlen,
        "dtype": getattr(torch, arguments.dtype),
    }
    return {
        "dense": LlamaConfig(**shared, intermediate_size=arguments.top * arguments.inner),
        "routed": MixtralConfig(
            **shared,
            intermediate_size=arguments.inner,
            num_local_experts=arguments.experts,
            num_experts_per_tok=arguments.top,
        ),
    }


def measure(config: PretrainedConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time pruning dense random weights, statistics included, after a run that compiles kernels."""
    free_memory()
    decoder = DecoderModel(random_model(config), include=["mlp.*"])
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    times = [once(decoder, tokens, arguments) for _ in range(arguments.repeat + 1)][1:]
    reset_peak()
    once(decoder, tokens, arguments)
    peak = peak_gib()
    statistics = [statistics_seconds(decoder, tokens, arguments) for _ in range(3)]
    seconds = median(times)
    return {
        "pruner": arguments.pruner,
        "dtype": arguments.dtype,
        "size": size_of(arguments),
        "blocks": len(decoder),
        "linears": sum(len(linears) for linears in decoder.linears),
        "weights": decoder.numel,
        "windows": len(tokens),
        "seqlen": tokens.shape[1],
        "batch": arguments.batch,
        "seconds": seconds,
        "seconds_range": [min(times), max(times)],
        "statistics_seconds_of_a_block": median(statistics),
        "weights_per_second": decoder.numel / seconds,
        "peak_gib": peak,
    }


def once(decoder: DecoderModel, tokens: Tensor, arguments: argparse.Namespace) -> float:
    """Return the seconds of one pruning of dense weights."""
    redraw(decoder)
    budgets = linear_budgets(uniform_plan(decoder, arguments.sparsity), decoder, Rules.EXACT)
    batch = AdaptiveBatch("prune", arguments.batch, divides=True)
    begin = now()
    masks = prune_model(
        decoder, PRUNERS[arguments.pruner](), budgets, tokens, batch, QuietProgress()
    )
    total = sum(masks.sparsities().values())  # waits for the copies of the masks to the host
    seconds = now() - begin
    assert total > 0
    return seconds


def statistics_seconds(
    decoder: DecoderModel, tokens: Tensor, arguments: argparse.Namespace
) -> float:
    """Return the seconds of the statistics of the first block."""
    needs = PRUNERS[arguments.pruner]().needs
    if not needs:
        return 0.0
    replay = Replay(decoder, tokens, AdaptiveBatch("prune", arguments.batch, divides=True))
    return seconds_of(lambda: replay.measure(0, needs))
