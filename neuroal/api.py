"""Python calls on a model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from neuroal.config import TaskConfig
from neuroal.errors import UserError, check_choice
from neuroal.evaluation.tasks import prepare, require
from neuroal.methods import named_method
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import LoadedModel, resolve_device
from neuroal.models.place import place_on_host, take_back
from neuroal.models.replicas import spread
from neuroal.pipeline import Recipe, StageCosts, allocate_and_prune
from neuroal.placement.base import placement_of
from neuroal.plan import SparsityPlan
from neuroal.pruners.base import Pruner
from neuroal.pruners.budget import Rules
from neuroal.refine.base import Refine
from neuroal.topups.base import TopUp
from neuroal.tracking import Progress, QuietProgress
from neuroal.validation import check_task


@contextmanager
def placed(
    model: PreTrainedModel, device: str | None, offload: str, devices: int
) -> Iterator[None]:
    """Have `model` on `device` inside the context, its blocks maybe waiting on the host.

    A model that has a placement of its own keeps it.
    """
    home = model.device
    if placement_of(model).offloads or (offload == "none" and device is None):
        yield
        return
    if offload not in ("none", "blocks"):
        raise UserError(f"offload={offload}: must be none or blocks for a model in memory")
    if offload == "blocks":
        if devices > 1:
            raise UserError(f"offload=blocks: does not go with devices={devices}")
        place_on_host(model, resolve_device(device or "auto"))
    elif device is not None:
        model.to(resolve_device(device))
    try:
        yield
    finally:
        take_back(model, home)


@dataclass(frozen=True, eq=False)
class PruningResult:
    """What `prune` did.

    Attributes:
        plan: the ratios.
        report: how the top-up came to them (λ's, every candidate's criterion).
        masks: of each linear, by key: (rows, cols) bool, True = pruned.
        sparsity: share of zeros over all prunable weights.
        seconds: of the stages ``allocate`` and ``prune``.
        calibration_tokens: that these stages looked at.
    """

    plan: SparsityPlan
    report: Mapping[str, Any]
    masks: Mapping[str, Tensor]
    sparsity: float
    seconds: Mapping[str, float]
    calibration_tokens: Mapping[str, int]


def prune(
    model: PreTrainedModel,
    tokens: Tensor | Sequence[Sequence[int]],
    *,
    pruner: str | Pruner = "wanda",
    topup: str | TopUp = "neuroal",
    refine: str | Refine | None = None,
    sparsity: float = 0.7,
    pattern: tuple[int, int] | None = None,
    rules: str = "exact",
    search_windows: int = 8,
    batch: int | None = None,
    seed: int = 0,
    device: str | None = None,
    devices: int = 1,
    offload: str = "none",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress | None = None,
) -> PruningResult:
    """Prune `model` in place.

    Args:
        model: a decoder-only model.
        tokens: calibration windows, all of one length: (windows, seqlen) token ids, or a data set
            of such rows.
        pruner: name of an option of the group ``pruner``, or an object.
        topup: likewise.
        refine: likewise, of the group ``refine``; None: the masks stay as the pruner made them.
        sparsity: share of zeros over all prunable weights, in (0, 1).
        pattern: (2, 4) keeps 2 of every 4 consecutive columns, on average over the blocks where
            the top-up gives them different ratios; takes the place of `sparsity`.
        rules: ``exact`` or ``reference``.
        search_windows: how many of the windows, from the first, the top-up searches with.
        batch: windows in one forward pass; None: by memory.
        seed: of everything that the top-up draws at random.
        device: where blocks compute; None: where the model is, or with `offload` the GPU if there
            is one.
        devices: how many GPUs share the candidates of an exact search, each with a copy of the
            model.
        offload: ``blocks`` lets the blocks wait in host memory and compute on `device` in turn;
            the model comes back to where it was. (``disk`` is for models that are not in memory.)
        include: patterns of linears to prune; empty: all.
        exclude: patterns of linears that stay dense.
        progress: told of every step; None: nobody is.

    Raises:
        UserError: a value that cannot be used.
    """
    if pattern is not None:
        if not 0 < pattern[0] < pattern[1]:
            raise UserError(f"pattern={pattern}: keep some, but not all, of every few columns")
        sparsity = 1 - pattern[0] / pattern[1]
    if not 0 < sparsity < 1:
        raise UserError(f"sparsity={sparsity}: must be above 0 and below 1")
    check_choice("rules", rules, Rules)
    windows = _windows(tokens)
    recipe = Recipe(
        pruner=named_method("pruner", pruner) if isinstance(pruner, str) else pruner,
        topup=named_method("topup", topup) if isinstance(topup, str) else topup,
        sparsity=sparsity,
        rules=Rules(rules),
        batch=batch,
        refine=named_method("refine", refine) if isinstance(refine, str) else refine,
        group=pattern[1] if pattern else None,
        seed=seed,
        devices=spread(model.device if device is None else resolve_device(device), devices),
    )
    recipe.check()
    training = model.training
    model.eval()
    try:
        with placed(model, device, offload, devices):
            subject = DecoderModel(model, include, exclude)
            costs = StageCosts(subject.device)
            shown = progress or QuietProgress()
            allocation, pruned = allocate_and_prune(
                subject, recipe, windows[:search_windows], windows, costs, shown
            )
    finally:
        model.train(training)
    return PruningResult(
        allocation.plan,
        allocation.report,
        pruned.masks,
        pruned.sparsity,
        costs.seconds,
        costs.calibration_tokens,
    )


def _windows(tokens: Tensor | Sequence[Sequence[int]]) -> Tensor:
    """`tokens` as one tensor (windows, seqlen)."""
    try:
        windows = (
            tokens if isinstance(tokens, Tensor) else torch.stack([*map(torch.as_tensor, tokens)])
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"tokens: need windows of token ids, all of one length ({error})"
        ) from error
    if windows.dim() != 2 or windows.is_floating_point() or windows.shape[0] < 1:
        raise UserError(f"tokens: need token ids (windows, seqlen), not {tuple(windows.shape)}")
    return windows


def evaluate(
    model: PreTrainedModel,
    tokenizer: Any,
    tasks: str | Sequence[str] = "builtin",
    *,
    seqlen: int | None = None,
    limit: int | None = None,
    batch: int | None = None,
    data_root: str | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure `model` as it is.

    Args:
        model: a decoder-only model.
        tokenizer: its tokenizer.
        tasks: names as in ``task.names``: texts (perplexity) and zero-shot tasks (accuracy).
        seqlen: tokens a window of a text; None: 2048, or the model's context if less.
        limit: windows of each text, documents of each task; None: all.
        batch: windows or requests in one forward pass; None: by memory.
        data_root: folder of local data sets; None: the Hugging Face cache, then the hub.
        progress: told of every task; None: nobody is.

    Returns:
        Task → ``kind``, ``limit``, ``seqlen``, and ``value``, ``stderr``, ``windows`` of a text or
        ``acc``, ``acc_stderr``, … ``documents``, ``version`` of a zero-shot task.

    Raises:
        UserError: a value that cannot be used, or data that is not at hand.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    config = TaskConfig(names=names, seqlen=seqlen, limit=limit, batch=batch)
    check_task(config)
    require(names, data_root)
    context = LoadedModel(model, tokenizer, model.name_or_path).context
    prepared = prepare(config, tokenizer, context, data_root)
    found: dict[str, dict[str, Any]] = {}
    training = model.training
    model.eval()
    try:
        with (progress or QuietProgress()).stage("evaluate", len(prepared), "task") as step:
            for task in prepared:
                found[task.name] = {**task.terms, **task.measure(model, tokenizer, batch)}
                step.advance(1, **{task.name: found[task.name][task.headline]})
    finally:
        model.train(training)
    return found
