"""Perplexity: which share of the card's matrix rate it reaches."""

from __future__ import annotations

import argparse
from typing import Any

from torch import Tensor

from bench.common import (
    VOCABULARY,
    Store,
    matrix_rate,
    now,
    peak_gib,
    products,
    random_llama,
    random_tokens,
    reset_peak,
)
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])


def main(store: Store, arguments: argparse.Namespace) -> None:
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    for batch in arguments.batches:
        store.measure(
            f"evaluate-batch{batch}-{arguments.shape}-{arguments.dtype}",
            lambda batch=batch: evaluate(subject, tokens, batch, arguments.dtype),
        )


def evaluate(subject: DecoderModel, tokens: Tensor, batch: int, dtype: str) -> dict[str, Any]:
    perplexity(subject.model, tokens[: 2 * batch], batch)  # warms up
    reset_peak()
    begin = now()
    found = perplexity(subject.model, tokens, batch)
    seconds = now() - begin
    width = subject.linears[0][0].cols
    work = products(subject, tokens, last=True) + 2 * tokens.numel() * width * VOCABULARY
    rate = matrix_rate(dtype)
    return {
        "seconds": seconds,
        "windows": len(tokens),
        "batch": batch,
        "perplexity": found.value,
        "rate": work / seconds,
        "matrix_rate": rate,
        "share": work / seconds / rate,
        "peak_gib": peak_gib(),
    }
