"""Golden cases: results of the NeuroAL authors' code, and runs of ours with the same protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from neuroal.evaluation.perplexity import perplexity
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.base import MaskRefiner, Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.prune_model import RefinedPruner, prune_model
from neuroal.pruners.settings import PruningSettings
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.sparsity.budget import Rules, linear_budgets
from neuroal.sparsity.plan import SparsityPlan
from neuroal.topups.base import AllocationContext, TopUp
from neuroal.topups.neuroal import NeuroAL, block_plan
from neuroal.topups.owl import OWL
from neuroal.topups.uniform import Uniform
from neuroal.tracking import QuietProgress

SEQLEN = 128
SEARCH, PRUNING, EVALUATION = slice(0, 8), slice(0, 16), slice(128, 160)
PRUNERS: dict[str, Pruner] = {
    "magnitude": Magnitude(),
    "wanda": Wanda(),
    "multiflow": Multiflow(),
    "sparsegpt": SparseGPT(),
}

SMALL = Path(__file__).parent / "data" / "golden"


def golden_folders() -> list[Path]:
    """Return the subset in the repository and, if present, the full set (NEUROAL_GOLDEN)."""
    full = Path(os.environ.get("NEUROAL_GOLDEN", SMALL.parents[3] / "shared" / "golden"))
    return [SMALL, *([full] if (full / "cases").is_dir() else [])]


@dataclass(frozen=True)
class Case:
    """One case of a golden folder: a model, a pruner, a top-up and a sparsity."""

    folder: Path
    name: str

    @property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.folder / "cases" / f"{self.name}.json").read_text())

    @property
    def masks(self) -> dict[str, np.ndarray[Any, Any]] | None:
        path = self.folder / "cases" / f"{self.name}.npz"
        return dict(np.load(path)) if path.exists() else None

    def topup(self) -> TopUp:
        """Return our top-up for the case."""
        makers: dict[str, Callable[[], TopUp]] = {
            "uniform": Uniform,
            "neuroal": lambda: NeuroAL(step=self.expected["step"]),
            "owl": OWL,
            "dsnot": Uniform,
        }
        return makers[self.expected["topup"]]()

    def refine(self) -> MaskRefiner | None:
        """Return DSnoT with the case's number of swaps, or None if the case does not use it."""
        cycles = self.expected.get("max_cycle_time")
        return None if cycles is None else DSnoT(max_cycle_time=cycles)

    def load(self) -> DecoderModel:
        path = self.folder / "models" / self.expected["family"]
        return DecoderModel(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval())

    def windows(self) -> Tensor:
        tokens = np.load(self.folder / "tokens.npy").astype(np.int64)
        return torch.from_numpy(tokens[: len(tokens) // SEQLEN * SEQLEN]).view(-1, SEQLEN)

    def context(self, decoder: DecoderModel) -> AllocationContext:
        return AllocationContext(
            decoder=decoder,
            settings=PruningSettings(
                PRUNERS[self.expected["pruner"]], self.expected["sparsity"], Rules.REFERENCE
            ),
            tokens=self.windows()[PRUNING if self.expected["topup"] == "owl" else SEARCH],
            batch=16,
            progress=QuietProgress(),
        )


def discover() -> list[Case]:
    """Return all cases of all golden folders."""
    return [
        Case(folder, path.stem)
        for folder in golden_folders()
        for path in sorted((folder / "cases").glob("*.json"))
    ]


@dataclass(frozen=True)
class GoldenResult:
    """Result of our code for a case."""

    report: dict[str, Any]
    plan: SparsityPlan
    masks: dict[str, Tensor]
    ppl_dense: float
    ppl: float


def run(case: Case) -> GoldenResult:
    """Run `case` with ``rules=reference``."""
    decoder = case.load()
    windows, context = case.windows(), case.context(decoder)
    ppl_dense = perplexity(decoder.model, windows[EVALUATION], batch=32).value
    allocation = case.topup().allocate(context)
    plan = plan_of_case(case, context, dict(allocation.report)) or allocation.plan
    budgets = linear_budgets(plan, decoder, Rules.REFERENCE)
    batch = AdaptiveBatch("prune", 16, divides=True)
    pruner = RefinedPruner(context.settings.pruner, case.refine())
    masks = prune_model(decoder, pruner, budgets, windows[PRUNING], batch, QuietProgress())
    ppl = perplexity(decoder.model, windows[EVALUATION], batch=32).value
    return GoldenResult(dict(allocation.report), plan, dict(masks), ppl_dense, ppl)


def plan_of_case(
    case: Case, context: AllocationContext, report: dict[str, Any]
) -> SparsityPlan | None:
    """Return the plan for the λ of the authors' code, if ours differs.

    Only with SparseGPT may λ differ, because of rounding.
    """
    expected = case.expected.get("lambda_block")
    if case.expected["pruner"] != "sparsegpt" or expected in (None, report.get("lambda_block")):
        return None
    return block_plan(context, expected)
