"""Reads golden cases (results of the NeuroAL authors' code) and runs ours on the same protocol."""

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
from neuroal.models.adapter import DecoderModel
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules, allot
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.pruning import prune_model
from neuroal.refine.base import Refine
from neuroal.refine.dsnot import DSnoT
from neuroal.topups.base import AllocationContext, TopUp
from neuroal.topups.neuroal import NeuroAL, block_plan, row_plan
from neuroal.topups.owl import OWL
from neuroal.topups.uniform import Uniform, uniform_plan
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
    """The subset in the repository, and the full set where there is one (NEUROAL_GOLDEN)."""
    full = Path(os.environ.get("NEUROAL_GOLDEN", SMALL.parents[3] / "shared" / "golden"))
    return [SMALL, *([full] if (full / "cases").is_dir() else [])]


@dataclass(frozen=True)
class Case:
    """One case of a golden folder."""

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
        """Our top-up for the case."""
        makers: dict[str, Callable[[], TopUp]] = {
            "uniform": Uniform,
            "neuroal": lambda: NeuroAL(step=self.expected["step"]),
            "owl": OWL,
            "dsnot": Uniform,
        }
        return makers[self.expected["topup"]]()

    def refine(self) -> Refine | None:
        """DSnoT with the case's number of swaps, where the case has it."""
        cycles = self.expected.get("max_cycle_time")
        return None if cycles is None else DSnoT(max_cycle_time=cycles)

    def load(self) -> DecoderModel:
        path = self.folder / "models" / self.expected["family"]
        return DecoderModel(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval())

    def windows(self) -> Tensor:
        tokens = np.load(self.folder / "tokens.npy").astype(np.int64)
        return torch.from_numpy(tokens[: len(tokens) // SEQLEN * SEQLEN]).view(-1, SEQLEN)

    def context(self, subject: DecoderModel) -> AllocationContext:
        return AllocationContext(
            subject=subject,
            pruner=PRUNERS[self.expected["pruner"]],
            sparsity=self.expected["sparsity"],
            rules=Rules.REFERENCE,
            tokens=self.windows()[PRUNING if self.expected["topup"] == "owl" else SEARCH],
            batch=16,
            progress=QuietProgress(),
        )


def discover() -> list[Case]:
    """All cases of all golden folders."""
    return [
        Case(folder, path.stem)
        for folder in golden_folders()
        for path in sorted((folder / "cases").glob("*.json"))
    ]


@dataclass(frozen=True)
class Outcome:
    """What our code made of a case."""

    report: dict[str, Any]
    plan: SparsityPlan
    masks: dict[str, Tensor]
    ppl_dense: float
    ppl: float


def run(case: Case) -> Outcome:
    """Run `case` with ``rules=reference``."""
    subject = case.load()
    windows, context = case.windows(), case.context(subject)
    ppl_dense = perplexity(subject.model, windows[EVALUATION], batch=32).value
    allocation = case.topup().allocate(context)
    plan = plan_of_case(case, context, dict(allocation.report)) or allocation.plan
    allotments = allot(plan, subject, Rules.REFERENCE)
    pruned = prune_model(
        subject, context.pruner, allotments, windows[PRUNING], 16, QuietProgress(), case.refine()
    )
    ppl = perplexity(subject.model, windows[EVALUATION], batch=32).value
    return Outcome(dict(allocation.report), plan, dict(pruned.masks), ppl_dense, ppl)


def plan_of_case(
    case: Case, context: AllocationContext, report: dict[str, Any]
) -> SparsityPlan | None:
    """The plan for the case's own λ where ours differs: only SparseGPT's may, by rounding."""
    wanted = case.expected.get("lambda_block")
    if case.expected["pruner"] != "sparsegpt" or wanted in (None, report.get("lambda_block")):
        return None
    return block_plan(context, wanted)


__all__ = ["Case", "Outcome", "discover", "row_plan", "run", "uniform_plan"]
