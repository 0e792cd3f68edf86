"""`neuroal.prune` on a model in memory: exact budgets, repeatable, other weights unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuroal
from neuroal.models.adapter import DecoderModel
from neuroal.sparsity.budget import total_zeros
from neuroal.topups.neuroal import NeuroAL
from tests.small_models import random_tokens, tiny_llama

TOKENS = random_tokens(6, 24)


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "multiflow", "sparsegpt", "alps"])
@pytest.mark.parametrize("topup", ["uniform", "neuroal", "owl"])
def test_budget_is_exact_and_nothing_else_changes(pruner: str, topup: str) -> None:
    decoder, dense = tiny_llama(), tiny_llama().model.state_dict()
    result = neuroal.prune(decoder.model, TOKENS, pruner=pruner, topup=topup, sparsity=0.63)
    zeros = sum(int(mask.sum()) for mask in result.masks.values())
    assert zeros == total_zeros(0.63, decoder.numel)
    assert result.sparsity == zeros / decoder.numel
    weights = {f"model.layers.{lin.block}.{lin.name}.weight": lin.key for lin in decoder}
    for name, value in decoder.model.state_dict().items():
        if name not in weights:
            assert torch.equal(value, dense[name]), name
            continue
        mask = result.masks[weights[name]]
        assert not value[mask].any()
        assert torch.isfinite(value).all()
        if pruner not in ("sparsegpt", "alps"):  # these update the other weights
            assert torch.equal(value[~mask], dense[name][~mask])


def test_windows_may_be_a_tensor_or_sequences() -> None:
    digests = [
        {
            key: bytes(mask.numpy())
            for key, mask in neuroal.prune(tiny_llama().model, rows).masks.items()
        }
        for rows in (TOKENS, TOKENS.tolist(), list(TOKENS))
    ]
    assert digests[0] == digests[1] == digests[2]


def test_a_second_run_gives_the_same_plan_and_masks() -> None:
    results = [neuroal.prune(tiny_llama().model, TOKENS) for _ in range(2)]
    assert results[0].report == results[1].report
    for key, mask in results[0].masks.items():
        assert torch.equal(mask, results[1].masks[key])


def test_the_batch_size_does_not_change_the_masks() -> None:
    results = [neuroal.prune(tiny_llama().model, TOKENS, batch=batch) for batch in (1, 4, 6)]
    for other in results[1:]:
        same = [
            float((mask == other.masks[k]).double().mean()) for k, mask in results[0].masks.items()
        ]
        assert min(same) > 0.999


def test_methods_can_be_objects_and_linears_excluded() -> None:
    model = tiny_llama().model
    topup = NeuroAL(step="block", block_candidates=[0.1])
    result = neuroal.prune(model, TOKENS, topup=topup, sparsity=0.5, exclude=["*.down_proj"])
    assert result.report["lambda_block"] == 0.1
    assert not any("down_proj" in key for key in result.masks)
    assert bool(model.model.layers[0].mlp.down_proj.weight.all())


def test_a_saved_plan_reproduces_the_masks(tmp_path: object) -> None:
    import json
    from pathlib import Path

    from neuroal.topups.plan_file import PlanFile

    first = neuroal.prune(tiny_llama().model, TOKENS, sparsity=0.6)
    path = Path(str(tmp_path)) / "plan.json"
    path.write_text(json.dumps(first.plan.to_dict()))
    again = neuroal.prune(tiny_llama().model, TOKENS, topup=PlanFile(str(path)), sparsity=0.6)
    for key, mask in first.masks.items():
        assert torch.equal(mask, again.masks[key])
    with pytest.raises(neuroal.UserError, match=r"made for 0\.6"):
        neuroal.prune(tiny_llama().model, TOKENS, topup=PlanFile(str(path)), sparsity=0.7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_name_the_linear(value: float) -> None:
    decoder = tiny_llama()
    next(iter(decoder)).weight[0, 0] = value
    with pytest.raises(neuroal.UserError, match=r"0\.self_attn\.q_proj"):
        neuroal.prune(decoder.model, TOKENS)


def test_invalid_values_are_named() -> None:
    model = tiny_llama().model
    with pytest.raises(neuroal.UserError, match="sparsity=1"):
        neuroal.prune(model, TOKENS, sparsity=1)
    with pytest.raises(neuroal.UserError, match="did you mean 'wanda'"):
        neuroal.prune(model, TOKENS, pruner="wonda")
    with pytest.raises(neuroal.UserError, match="token ids"):
        neuroal.prune(model, torch.rand(3, 4))
    with pytest.raises(neuroal.UserError, match="all of one length"):
        neuroal.prune(model, [[1, 2, 3], [4, 5]])
    with pytest.raises(neuroal.UserError, match=r"rules=exakt.*did you mean 'exact'"):
        neuroal.prune(model, TOKENS, rules="exakt")
    with pytest.raises(neuroal.UserError, match="leave no linear"):
        neuroal.prune(model, TOKENS, exclude=["*"])
    assert DecoderModel(model).numel > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch=0: must be at least 1"),
        ({"batch": 1.5}, "batch=1.5: must be an integer"),
        ({"seed": 2**64}, "seed=18446744073709551616: must be at most"),
        ({"seed": "1"}, "seed=1: must be an integer"),
        ({"search_windows": 0}, "search_windows=0: must be at least 1"),
        ({"search_windows": -1}, "search_windows=-1: must be at least 1"),
        ({"sparsity": 70}, r"sparsity=70: .* did you mean 0\.7\?"),
        ({"tokens": torch.ones(2, 8, dtype=torch.bool)}, "token ids"),
        ({"tokens": torch.full((2, 8), -1)}, "token id -1"),
    ],
)
def test_numbers_are_checked_as_on_the_command_line(settings: dict[str, Any], message: str) -> None:
    tokens = settings.pop("tokens", TOKENS)
    with pytest.raises(neuroal.UserError, match=message):
        neuroal.prune(tiny_llama().model, tokens, pruner="magnitude", topup="uniform", **settings)


@pytest.mark.parametrize(
    ("pruner", "topup", "allocate", "prune"),
    [
        ("magnitude", "uniform", 0, 0),
        ("magnitude", "owl", 2, 0),
        ("wanda", "alpha", 0, 6),
        ("wanda", "neuroal", 2, 6),
    ],
)
def test_the_calibration_tokens_are_those_used(
    pruner: str, topup: str, allocate: int, prune: int
) -> None:
    result = neuroal.prune(tiny_llama().model, TOKENS, pruner=pruner, topup=topup, search_windows=2)
    assert result.calibration_tokens == {"allocate": allocate * 24, "prune": prune * 24}


def test_progress_is_shown_if_it_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    for progress, shown in ((True, True), (False, False), (None, False)):
        neuroal.prune(
            tiny_llama().model,
            random_tokens(2, 16),
            pruner="magnitude",
            topup="uniform",
            progress=progress,
        )
        assert ("prune" in capsys.readouterr().err) == shown
