"""How often `topup.search=adaptive` finds the λ's of `exact`, over the shipped models."""

from __future__ import annotations

import argparse
from typing import Any

from bench.common import DEVICE, Store, now
from bench.search import PRUNERS
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import load_model
from neuroal.pruners.budget import Rules
from neuroal.topups.base import AllocationContext
from neuroal.topups.neuroal import NeuroAL
from neuroal.tracking import QuietProgress

FAMILIES = ("llama", "mistral", "phi", "opt")
RATIOS = (0.6, 0.7, 0.8)
STEPS = ("block", "row")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=512)


def main(store: Store, arguments: argparse.Namespace) -> None:
    cases = [
        (family, pruner, ratio)
        for ratio in arguments.ratios
        for family in arguments.families
        for pruner in arguments.pruners
    ]
    found = []
    for family, pruner, ratio in cases:
        result = store.measure(
            f"adaptive-{family}-{pruner}-{ratio}",
            lambda family=family, pruner=pruner, ratio=ratio: compare(
                family, pruner, ratio, arguments
            ),
        )
        if result is not None:
            found.append(result)
    same = sum(result["same"] for result in found)
    worst = max((result["loss"] for result in found), default=0.0)
    print(f"adaptive: same λ's in {same} of {len(found)} cases; worst criterion + {worst:.2%}")


def compare(
    family: str, pruner: str, ratio: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Both searches on one case, and how much worse the criterion of adaptive's choice is."""
    from neuroal.cli import composed
    from neuroal.run import calibration_for

    config = composed(
        [
            f"model=zoo/{family}",
            f"pruner={pruner}",
            f"calibration.search_windows={arguments.windows}",
            f"calibration.seqlen={arguments.seqlen}",
        ]
    )
    loaded = load_model(config.model, DEVICE)
    subject = DecoderModel(loaded.model)
    _, windows = calibration_for(config, loaded)
    context = AllocationContext(
        subject=subject,
        pruner=PRUNERS[pruner](),
        sparsity=ratio,
        rules=Rules.EXACT,
        tokens=windows.tokens,
        batch=len(windows.tokens),
        progress=QuietProgress(),
    )
    reports, seconds = {}, {}
    for search in ("exact", "adaptive"):
        begin = now()
        reports[search] = NeuroAL(search=search).allocate(context).report
        seconds[search] = now() - begin
    exact, adaptive = reports["exact"], reports["adaptive"]
    lambdas = {
        name: [report.get(f"lambda_{step}") for step in STEPS] for name, report in reports.items()
    }
    return {
        "same": lambdas["exact"] == lambdas["adaptive"],
        "lambdas": lambdas,
        "loss": max(loss(exact, adaptive, "block"), final(adaptive) / final(exact) - 1),
        "seconds": seconds,
        "report": reports,
    }


def loss(exact: dict[str, Any], adaptive: dict[str, Any], step: str) -> float:
    """By how much the criterion of adaptive's λ exceeds the best, as a share of it."""
    criteria = exact[f"criterion_{step}"]
    chosen = exact[f"candidates_{step}"].index(adaptive[f"lambda_{step}"])
    return float(criteria[chosen] / min(criteria) - 1)


def final(report: dict[str, Any]) -> float:
    """The least criterion of the last step."""
    last = report.get("criterion_row") or report["criterion_block"]
    return float(min(value for value in last if value is not None))
