"""Time an allocation by Fisher information: labels, rounds and memory."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from bench.common import DEVICE, Store, now, peak_gib, reset_peak
from bench.marginal import Clock
from bench.models import (
    allocation_context,
    llama_config,
    random_llama,
    random_tokens,
    shape_name,
)
from neuroal.gradients.information import FORMS
from neuroal.models.adapter import DecoderModel
from neuroal.models.offload import place_on_host
from neuroal.pruners.wanda import Wanda
from neuroal.topups.fisher import Fisher


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--form", choices=FORMS, default="factored")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument(
        "--offload", choices=("none", "blocks"), default="none", help="blocks: in host memory"
    )


def main(store: Store, arguments: argparse.Namespace) -> None:
    shape = shape_name(arguments.shape, arguments.blocks)
    placed = "-blocks" if arguments.offload == "blocks" else ""
    name = f"fisher-{shape}-{arguments.dtype}-{arguments.form}{placed}"
    store.measure(name, partial(measure, arguments))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time a whole allocation after one that compiles the kernels."""
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    if arguments.offload == "blocks":
        place_on_host(decoder.model, DEVICE)
        decoder = DecoderModel(decoder.model)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    windows = min(8, arguments.windows)
    for _ in range(2):
        clock = Clock()
        context = allocation_context(decoder, Wanda(), 0.7, tokens, arguments.batch, clock)
        topup = Fisher(form=arguments.form, rounds=arguments.rounds, windows=windows)
        reset_peak()
        begin = now()
        report = topup.allocate(context).report
        total = now() - begin
    laps, labels = clock.laps["Fisher information"], clock.laps["draw labels"]
    return {
        "shape": arguments.shape,
        "dtype": arguments.dtype,
        "form": arguments.form,
        "offload": arguments.offload,
        "blocks": len(decoder),
        "windows": len(tokens),
        "seqlen": tokens.shape[1],
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "seconds": total,
        "seconds_before_rounds": laps[0] - labels[0],
        "seconds_a_round": median(b - a for a, b in pairwise(laps)),
        "seconds_by_round": [b - a for a, b in pairwise(laps)],
        "peak_gib": peak_gib(),
        "loss": report["loss"],
    }
