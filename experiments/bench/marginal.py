"""Time an iteration of equal marginals and project a preset, with or without offloading."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.common import DEVICE, Store, now, peak_gib, reset_peak, seconds_of
from bench.models import (
    allocation_context,
    llama_config,
    random_llama,
    random_tokens,
    shape_name,
)
from neuroal.gradients.presets import PRESETS
from neuroal.models.adapter import DecoderModel
from neuroal.models.offload import place_on_host
from neuroal.pruners.wanda import Wanda
from neuroal.search.context import AllocationContext
from neuroal.topups.marginal import EqualMarginals
from neuroal.tracking import QuietProgress, Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="first")
    parser.add_argument(
        "--iterations",
        nargs=2,
        type=at_least_two,
        default=(3, 3),
        help="of linears and of rows; the first of each is a warm-up and not counted",
    )
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument(
        "--offload", choices=("none", "blocks"), default="none", help="blocks: in host memory"
    )


def at_least_two(text: str) -> int:
    count = int(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"{count}: must be at least 2, the first warms up")
    return count


def main(store: Store, arguments: argparse.Namespace) -> None:
    shape = shape_name(arguments.shape, arguments.blocks)
    placed = "-blocks" if arguments.offload == "blocks" else ""
    preset = "" if arguments.preset == "first" else f"-{arguments.preset}"
    name = f"marginal-{shape}-{arguments.dtype}{preset}{placed}"
    store.measure(name, partial(measure, arguments))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the ranking pass and some iterations of each kind."""
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    if arguments.offload == "blocks":
        place_on_host(decoder.model, DEVICE)
        decoder = DecoderModel(decoder.model)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    clock = Clock()
    context = allocation_context(decoder, Wanda(), 0.7, tokens, arguments.batch, clock)
    linear, row = arguments.iterations
    topup = EqualMarginals(arguments.preset, linear_iterations=linear, row_iterations=row)
    whole = EqualMarginals(arguments.preset).resolved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiling = seconds_of(partial(warm_up, topup, context))
        reset_peak()
        begin = now()
        report = topup.allocate(context).report
    total = now() - begin
    each, before = clock.iterations(total)
    projected = before + sum(whole[f"{unit}_iterations"] * each[unit] for unit in each)
    return {
        "shape": arguments.shape,
        "dtype": arguments.dtype,
        "offload": arguments.offload,
        "blocks": len(decoder),
        "windows": len(tokens),
        "seqlen": tokens.shape[1],
        "batch": arguments.batch,
        "iterations": [linear, row],
        "seconds_an_iteration": each,
        "seconds_before_iterations": before,
        "seconds_of_warm_up": compiling,
        "preset": arguments.preset,
        "projected": projected,
        "peak_gib": peak_gib(),
        "divergence": [
            report.get("objective_linear", report["objective_row"])[0],
            report["objective_row"][-1],
        ],
    }


def warm_up(topup: EqualMarginals, context: AllocationContext) -> None:
    """Allocate once with few windows and iterations, which compiles everything."""
    few = dataclasses.replace(
        context, tokens=context.tokens[: topup.windows], progress=QuietProgress()
    )
    dataclasses.replace(topup, linear_iterations=1, row_iterations=1).allocate(few)


class Clock(QuietProgress):
    """Record when each unit of each stage was done."""

    def __init__(self) -> None:
        self.laps: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Step]:
        laps = self.laps.setdefault(name.split(",")[0], [])
        laps.append(now())

        class Lap:
            def advance(self, count: int = 1, **info: object) -> None:
                laps.append(now())

        yield Lap()

    def iterations(self, total: float) -> tuple[dict[str, float], float]:
        """Return the seconds of one iteration, by kind, and the seconds of `total` before them."""
        each, spent = {}, 0.0
        for unit in ("linear", "row"):
            marks = self.laps.get(f"equal {unit}s")
            if marks is None:
                continue
            # The first iteration of a stage warms up, so it is not representative.
            each[unit] = (marks[-1] - marks[1]) / (len(marks) - 2)
            spent += marks[-1] - marks[0]
        return each, total - spent
