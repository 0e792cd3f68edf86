"""Time the stages of a run on one and on several devices of one machine."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.common import DEVICE, Store, now, seconds_of
from bench.marginal import Clock
from bench.models import llama_config, random_llama, random_tokens, redraw, shape_name
from bench.search import PRUNERS
from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.costs import StageCosts
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices
from neuroal.parallel.replicated import copy_to_all, group_of, replicated, together
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.plan import uniform_plan
from neuroal.topups.base import TopUp
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import Progress, QuietProgress

STAGES = ("search", "fisher", "marginal", "prune", "evaluate")
EXCHANGES = 20
"""Number of exchanges that are timed together."""
SECONDS = {"marginal": "seconds_an_iteration", "prune": "seconds_of_stage"}
"""Stage → the figure that is compared, if that is not `seconds`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--pruner", choices=PRUNERS, default="wanda")
    parser.add_argument("--windows", type=int, default=128, help="of pruning")
    parser.add_argument("--search-windows", type=int, default=8, help="of the search")
    parser.add_argument("--gradient-windows", type=int, default=64, help="of fisher and marginal")
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass")
    parser.add_argument("--iterations", type=int, default=4, help="of marginal, at least 3")


def main(store: Store, arguments: argparse.Namespace) -> None:
    decoder = random_llama(llama_config(arguments.shape, arguments.dtype, arguments.blocks))
    for count in arguments.devices:
        shape = shape_name(arguments.shape, arguments.blocks)
        suffix = f"{shape}-{arguments.pruner}-{arguments.dtype}"
        one = store.results().get(f"devices-1-{suffix}", {}) if count > 1 else {}
        work = partial(measure, decoder, count, arguments, one)
        store.measure(f"devices-{count}-{suffix}", work)


def measure(
    decoder: DecoderModel, count: int, arguments: argparse.Namespace, one: dict[str, Any]
) -> dict[str, Any]:
    """Time each stage twice on `count` devices; the first time includes compilation.

    `start_seconds` is the time until all processes are connected, and `copy_seconds` that until
    every device has the model. `exchange_seconds` has those of single exchanges (`_exchanges`).
    `alone` has the seconds of each stage in the result `one` of one device of the same host, and
    `equal` compares the reports to the last bit.
    """
    figures: dict[str, Any] = {"devices": count, "pruner": arguments.pruner}
    reports: dict[str, Any] = {}
    redraw(decoder)
    with replicated(decoder.model, pick_devices(DEVICE, count)):
        exchanges = together(decoder, _exchanges, progress=QuietProgress())
        group = group_of(decoder.model)
        if group is not None:
            figures |= {f"{part}_seconds": seconds for part, seconds in group.seconds.items()}
            figures["exchange_seconds"] = exchanges
        for stage in arguments.stages:
            work = _work(decoder, stage, arguments)
            first = seconds_of(work)
            begin = now()
            reports[stage], others = work()
            seconds = now() - begin
            figures[stage] = {"seconds": seconds, "compile_seconds": first - seconds, **others}
            figures[stage] |= compared(stage, reports[stage], one)
    return {**figures, "report": reports}


def compared(stage: str, report: Any, one: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of a stage in the result `one`, and whether its report is equal."""
    if stage not in one:
        return {}
    seconds = one[stage][SECONDS.get(stage, "seconds")]
    return {"alone": seconds, "equal": report == one["report"][stage]}


def _exchanges(decoder: DecoderModel, *, progress: Progress) -> dict[str, float]:
    """Return the seconds to meet, to add 16 KiB, and to add the rows of 128 MiB in float16."""
    peers, device = decoder.peers, decoder.device
    small = torch.zeros(2**12, device=device)
    matrix = torch.zeros(2**13, 2**13, dtype=torch.float16, device=device)
    work: dict[str, Callable[[], object]] = {
        "meet": peers.meet,
        "16 KiB": lambda: peers.sums([small]),
        "rows of 128 MiB": lambda: peers.row_sums([matrix]),
    }
    seconds = {}
    for name, exchange in work.items():
        exchange()
        begin = now()
        for _ in range(EXCHANGES):
            exchange()
        seconds[name] = (now() - begin) / EXCHANGES
    return seconds


def _work(
    decoder: DecoderModel, stage: str, arguments: argparse.Namespace
) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """Return a function that does a stage and returns its report and other figures."""
    few = random_tokens(arguments.search_windows, arguments.seqlen)
    many = random_tokens(arguments.gradient_windows, arguments.seqlen)
    if stage == "search":
        return partial(_allocate, decoder, NeuroAL(), few, arguments)
    if stage == "fisher":
        return partial(_allocate, decoder, Fisher(), many, arguments)
    if stage == "marginal":
        topup = EqualMarginals(row_iterations=arguments.iterations)
        return partial(_allocate, decoder, topup, many, arguments)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    if stage == "prune":
        return partial(_prune, decoder, tokens, arguments)
    return lambda: (perplexity(decoder.model, tokens, arguments.batch).value, {})


def _settings(arguments: argparse.Namespace) -> PruningSettings:
    return PruningSettings(PRUNERS[arguments.pruner](), 0.7, batch=arguments.batch)


def _allocate(
    decoder: DecoderModel, topup: TopUp, tokens: Tensor, arguments: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    clock, costs = Clock(), StageCosts(DEVICE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recipe = Recipe(_settings(arguments), topup)
        report = dict(allocate(decoder, recipe, tokens, costs, clock).report)
    figures: dict[str, Any] = {"peak_bytes": costs.peak_bytes["allocate"]}
    if isinstance(topup, EqualMarginals):
        each, before = clock.iterations(costs.seconds["allocate"])
        figures |= {"seconds_an_iteration": each["row"], "seconds_before_iterations": before}
    return report, figures


def _prune(
    decoder: DecoderModel, tokens: Tensor, arguments: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    redraw(decoder)
    copy_to_all(decoder.model)
    costs = StageCosts(DEVICE)
    recipe = Recipe(_settings(arguments), Uniform())
    allocation = Allocation(uniform_plan(decoder, 0.7))
    masks = prune(decoder, recipe, allocation, tokens, costs, QuietProgress())
    figures = {
        "seconds_of_stage": costs.seconds["prune"],  # without drawing dense weights
        "peak_bytes": costs.peak_bytes["prune"],
    }
    return masks.digests(), figures
