"""What the search costs, in forward equivalents.

    python experiments/benchmark.py

Forward equivalents = search seconds ÷ (candidates × 2 × seconds of one dense pass of the blocks
over the search windows). The dense pass is plain eager `transformers` with SDPA attention, all
windows in one batch, same dtype, median of 5, in the same process. The NeuroAL authors' code needs
5.4 on an H100. The table is printed and written to `results/benchmark-DEVICE.md`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import date
from pathlib import Path

import torch

from neuroal.cli import composed
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import LoadedModel, load_model, resolve_device
from neuroal.records.identity import environment
from neuroal.run import calibration_for, make_recipe
from neuroal.topups.base import AllocationContext
from neuroal.tracking import progress_for_terminal

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="as for the command neuroal")
    parser.add_argument("--repeat", type=int, default=5, help="dense passes; the median counts")
    arguments = parser.parse_args()
    config = composed(
        [
            "model=smollm2-135m-instruct-q4",
            "calibration.search_windows=8",
            "calibration.seqlen=256",
            *arguments.overrides,
        ]
    )
    device = resolve_device(config.device)
    loaded = load_model(config.model, device)
    _, search = calibration_for(config, loaded)
    recipe = make_recipe(config)
    passes = [dense_pass(loaded, search.tokens, device) for _ in range(arguments.repeat + 1)][1:]
    context = AllocationContext(
        subject=DecoderModel(loaded.model),
        pruner=recipe.pruner,
        sparsity=recipe.sparsity,
        rules=recipe.rules,
        tokens=search.tokens,
        batch=len(search.tokens),
        progress=progress_for_terminal(),
    )
    start = time.perf_counter()
    report = recipe.topup.allocate(context).report
    synchronise(device)
    seconds = time.perf_counter() - start
    candidates = sum(len(report.get(f"criterion_{step}", [])) for step in ("block", "row"))
    forward = statistics.median(passes)
    rows = {
        "model": loaded.name,
        "windows": f"{len(search.tokens)} × {search.tokens.shape[1]} tokens",
        "pruner, sparsity": f"{type(recipe.pruner).__name__}, {recipe.sparsity}",
        "candidates": str(candidates),
        "dense pass, median": f"{forward:.3f} s (of {min(passes):.3f} … {max(passes):.3f})",
        "search": f"{seconds:.1f} s",
        "**forward equivalents**": f"**{seconds / (candidates * 2 * forward):.2f}**",
        "λ, λ_r": f"{report.get('lambda_block')}, {report.get('lambda_row')}",
        "device": environment(device)["device"],
        "versions": ", ".join(f"{k} {v}" for k, v in environment(device)["packages"].items()),
        "date": str(date.today()),
    }
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    print("\n".join(lines))
    target = ROOT / "results" / f"benchmark-{device.type}.md"
    target.parent.mkdir(exist_ok=True)
    command = " ".join(["python experiments/benchmark.py", *arguments.overrides])
    target.write_text("\n".join(["# Cost of the search", "", f"`{command}`", "", *lines, ""]))


@torch.no_grad()
def dense_pass(loaded: LoadedModel, tokens: torch.Tensor, device: torch.device) -> float:
    """Seconds of one pass of the blocks over all windows (without the language-model head)."""
    base = loaded.model.base_model
    tokens = tokens.to(device)
    synchronise(device)
    start = time.perf_counter()
    base(tokens, use_cache=False)
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
