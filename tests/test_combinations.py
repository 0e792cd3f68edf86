"""Every pruner × top-up × refinement × family: exact budget, other weights unchanged."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import neuroal
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.alps import ALPS
from neuroal.pruners.base import MaskRefiner, Pruner
from neuroal.pruners.magnitude import Magnitude
from neuroal.pruners.multiflow import Multiflow
from neuroal.pruners.sparsegpt import SparseGPT
from neuroal.pruners.wanda import Wanda
from neuroal.refine.dsnot import DSnoT
from neuroal.sparsity.budget import total_zeros
from neuroal.topups.alpha import AlphaPruning
from neuroal.topups.atp import ATP
from neuroal.topups.base import TopUp
from neuroal.topups.dlp import DLP
from neuroal.topups.evolve import Evolve
from neuroal.topups.fisher import Fisher
from neuroal.topups.marginal import EqualMarginals
from neuroal.topups.neuroal import NeuroAL
from neuroal.topups.owl import OWL
from neuroal.topups.uniform import Uniform
from tests.architectures import FAMILIES, model_of
from tests.small_models import random_tokens

PRUNERS: dict[str, Pruner] = {
    "magnitude": Magnitude(),
    "wanda": Wanda(),
    "multiflow": Multiflow(),
    "sparsegpt": SparseGPT(),
    "alps": ALPS(stages=3, stage_steps=3, cg_steps=20),
}
FEW: dict[str, Any] = {"block_candidates": [0.05, 0.2], "row_candidates": [0.0, 0.1]}
TOPUPS: dict[str, TopUp] = {
    "uniform": Uniform(),
    "neuroal": NeuroAL(**FEW),
    "neuroal-rows": NeuroAL(**FEW, rows_with_updates=True),
    "neuroal-kl": NeuroAL(**FEW, criterion="output_kl"),
    "neuroal-perplexity": NeuroAL(**FEW, criterion="perplexity", step="block"),
    "owl": OWL(),
    "alpha": AlphaPruning(),
    "dlp": DLP(),
    "atp": ATP(step=0.1),
    "fisher": Fisher(windows=2, rounds=2),
    "marginal": EqualMarginals(linear_iterations=2, row_iterations=2),
    "evolve": Evolve(passes=6, generation=3),
}
REFINES: dict[str, MaskRefiner | None] = {"none": None, "dsnot": DSnoT()}
COMBINED = [
    (name, refine)
    for name, pruner in PRUNERS.items()
    for refine in REFINES
    if refine == "none" or pruner.refinable
]
SPARSITY = 0.63
TOKENS = random_tokens(4, 24, seed=7)


@pytest.mark.filterwarnings("ignore:topup=marginal fits")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("pruner", "refine"), COMBINED)
@pytest.mark.parametrize("topup", TOPUPS)
def test_a_combination_meets_its_budget(family: str, pruner: str, topup: str, refine: str) -> None:
    runs = []
    for _ in range(2):
        model = model_of(family)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        result = neuroal.prune(
            model,
            TOKENS,
            pruner=PRUNERS[pruner],
            topup=TOPUPS[topup],
            refine=REFINES[refine],
            sparsity=SPARSITY,
            search_windows=2,
        )
        runs.append((model.state_dict(), result))
    after, result = runs[0]
    decoder = DecoderModel(model)
    zeros = sum(int(mask.sum()) for mask in result.masks.values())
    assert zeros == total_zeros(SPARSITY, decoder.numel)
    weights = {
        f"{decoder.blocks_name}.{linear.key}.weight": result.masks[linear.key] for linear in decoder
    }
    updates = PRUNERS[pruner].updates_weights and refine == "none"
    for key, value in after.items():
        assert bool(torch.isfinite(value).all()), key
        if key not in weights:
            assert torch.equal(value, before[key]), key
            continue
        assert not bool(value[weights[key]].any()), key
        if not updates:
            remaining = ~weights[key]
            assert torch.equal(value[remaining], before[key][remaining]), key
    again, repeated = runs[1]
    assert all(torch.equal(value, again[key]) for key, value in after.items())
    assert repeated.report == result.report


def test_patterns_work_with_every_pruner_and_block_plan() -> None:
    neuroal_blocks = NeuroAL(step="block", block_candidates=[0.2])
    plans: list[TopUp] = [Uniform(), OWL(spread=0.3), DLP(), neuroal_blocks]
    for pruner, topup in itertools.product(PRUNERS.values(), plans):
        model = model_of("llama")
        result = neuroal.prune(model, TOKENS, pruner=pruner, topup=topup, pattern=(4, 8))
        keeps = []
        for key, mask in result.masks.items():
            per_group = (~mask).view(len(mask), -1, 8).sum(2)
            assert int(per_group.min()) == int(per_group.max())
            keeps.append((key.split(".")[0], int(per_group.max())))
        assert len(set(keeps)) == 2  # one N per block
        assert sum(keep for _, keep in set(keeps)) == 8 or len({k for _, k in keeps}) == 1
        assert result.sparsity == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine": DSnoT(), "topup": Uniform(), "pattern": (2, 4)}, "refine=dsnot"),
        ({"topup": NeuroAL(), "pattern": (2, 4)}, r"topup\.step=both"),
        ({"topup": NeuroAL(step="row"), "pruner": SparseGPT()}, r"topup\.step=row"),
        (
            {
                "topup": NeuroAL(rows_with_updates=True),
                "pruner": SparseGPT(),
                "rules": "reference",
            },
            "rules=exact",
        ),
        ({"topup": NeuroAL(step="row"), "pruner": ALPS()}, r"topup\.step=row"),
        ({"topup": NeuroAL(), "pruner": ALPS(), "rules": "reference"}, "rules=exact"),
        ({"topup": Uniform(), "pruner": ALPS(), "refine": DSnoT()}, "refine=none"),
        ({"pattern": (4, 4)}, r"pattern=\(4, 4\)"),
        ({"pattern": (2, 4, 8)}, r"must be \(N, M\)"),
        ({"pattern": (2.0, 4)}, r"must be \(N, M\)"),
        ({"pattern": (2, 4), "sparsity": 0.9}, r"sparsity=0\.9: contradicts pattern=\(2, 4\)"),
        ({"sparsity": float("nan")}, "above 0 and below 1"),
    ],
)
def test_invalid_combinations_are_reported_before_any_work(
    settings: dict[str, Any], message: str
) -> None:
    model = model_of("llama")
    with pytest.raises(neuroal.UserError, match=message) as raised:
        neuroal.prune(model, TOKENS, **settings)
    assert "\n" not in str(raised.value)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
