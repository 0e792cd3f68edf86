"""Time perplexity, as a share of the GPU's matrix rate."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from torch import Tensor

from bench.common import Store, now, peak_gib, reset_peak
from bench.models import (
    VOCABULARY,
    llama_config,
    matrix_rate,
    products,
    random_llama,
    random_tokens,
)
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])


def main(store: Store, arguments: argparse.Namespace) -> None:
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    for batch in arguments.batches:
        store.measure(
            f"evaluate-batch{batch}-{arguments.shape}-{arguments.dtype}",
            partial(evaluate, decoder, tokens, batch, arguments.dtype),
        )


def evaluate(decoder: DecoderModel, tokens: Tensor, batch: int, dtype: str) -> dict[str, Any]:
    """Time one evaluation, after a warm-up of two batches."""
    perplexity(decoder.model, tokens[: 2 * batch], batch)
    reset_peak()
    begin = now()
    figures = perplexity(decoder.model, tokens, batch)
    seconds = now() - begin
    width = decoder.linears[0][0].cols
    work = products(decoder, tokens, last=True) + 2 * tokens.numel() * width * VOCABULARY
    rate = matrix_rate(dtype)
    return {
        "seconds": seconds,
        "windows": len(tokens),
        "batch": batch,
        "perplexity": figures.value,
        "rate": work / seconds,
        "matrix_rate": rate,
        "share": work / seconds / rate,
        "peak_gib": peak_gib(),
    }
