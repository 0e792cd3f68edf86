"""Prune and evaluate a model in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from neuroal.config import validation
from neuroal.config.instantiate import named_method
from neuroal.config.schema import BOS, TaskConfig
from neuroal.data.text import calibration_text
from neuroal.errors import UserError, check_choice
from neuroal.evaluation.tasks import evaluate_tasks, prepare, require
from neuroal.execution.costs import StageCosts
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import placed, replicas, resolve_device
from neuroal.models.finite import check_finite
from neuroal.models.load import LoadedModel
from neuroal.models.tokens import check_tokens, token_windows
from neuroal.models.totals import Totals
from neuroal.models.versions import warn_of_untested_versions
from neuroal.parallel.replicated import replicated
from neuroal.pipeline import Recipe, allocate
from neuroal.pipeline import prune as prune_stage
from neuroal.pruners.base import MaskRefiner, Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.sparsity.budget import Rules
from neuroal.sparsity.plan import SparsityPlan
from neuroal.topups.base import TopUp
from neuroal.tracking import Progress, progress_of


@dataclass(frozen=True, eq=False)
class PruningResult:
    """Result of `prune`.

    Attributes:
        plan: sparsity of every linear or row.
        report: search report of the top-up, such as each candidate's λ and criterion.
        masks: key of a linear → mask (rows, cols) of bool, True = pruned.
        sparsity: share of zeros over all prunable weights.
        shares: shares of these zeros in the ``prunable`` weights, in all matrices of the ``blocks``
            and in the whole ``model``.
        seconds: wall-clock time of the stages ``allocate`` and ``prune``.
        calibration_tokens: number of tokens used by these stages.
    """

    plan: SparsityPlan
    report: Mapping[str, Any]
    masks: Mapping[str, Tensor]
    sparsity: float
    seconds: Mapping[str, float]
    calibration_tokens: Mapping[str, int]
    shares: Mapping[str, float]


def prune(
    model: PreTrainedModel,
    tokens: Tensor | Sequence[Sequence[int]],
    *,
    pruner: str | Pruner = "wanda",
    topup: str | TopUp = "neuroal",
    refine: str | MaskRefiner | None = None,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
    rules: str = "exact",
    search_windows: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str | None = None,
    devices: int = 1,
    offload: str = "none",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress | bool | None = None,
) -> PruningResult:
    """Prune `model` in place.

    Args:
        model: a decoder-only model.
        tokens: calibration windows: token ids (windows, seqlen), as a tensor or as a sequence of
            rows of equal length.
        pruner: option of the group ``pruner``, or a pruner.
        topup: option of the group ``topup``, or a top-up.
        refine: option of the group ``refine``, or a refinement; None: masks stay as pruned.
        sparsity: share of zeros over all prunable weights, in (0, 1); None: that of `pattern`, or
            0.7.
        pattern: N:M pattern (N, M) that keeps N of every M consecutive columns, on average over the
            blocks if the top-up varies their sparsity.
        rules: ``exact`` for equal budgets, or ``reference`` for the rounding of the authors' code.
        search_windows: number of leading windows of `tokens` that the top-up uses; None: its own
            number, 64 for ``fisher`` and ``marginal``, 8 for the others.
        batch: windows per forward pass; None: as memory allows.
        seed: seed of the top-up's random numbers.
        device: compute device; None: the device of the model or, with `offload`, the GPU if there
            is one.
        devices: number of GPUs that share the work, each with a copy of the model and a process of
            its own. On a CPU, number of processes, which share the weights.
        offload: ``blocks`` keeps idle blocks in host memory and moves them to `device` in turn;
            ``devices`` keeps them in the memory of `devices` GPUs; ``none`` does neither.
        include: patterns of linears to prune; empty: all.
        exclude: patterns of linears to leave dense.
        progress: True shows a bar for each stage on stderr; None and False show nothing; an object
            receives the updates (see `neuroal.tracking.progress.Progress`).

    Returns:
        Plan, masks and costs.

    Raises:
        UserError: a value that cannot be used.
    """
    warn_of_untested_versions()
    ratio = _ratio(sparsity, pattern)
    check_choice("rules", rules, Rules)
    validation.check_batch("batch", batch)
    validation.check_seed("seed", seed)
    validation.check_windows("search_windows", search_windows)
    windows = token_windows(tokens)
    check_tokens(model, windows, "tokens: there is")
    compute = model.device if device is None else resolve_device(device)
    settings = PruningSettings(
        pruner=_method("pruner", pruner),
        sparsity=ratio,
        rules=Rules(rules),
        group=pattern[1] if pattern else None,
        seed=seed,
        devices=replicas(compute, devices, offload),
        batch=batch,
    )
    recipe = Recipe(settings, _method("topup", topup), _method("refine", refine))
    recipe.check()
    search = windows[: recipe.topup.default_windows if search_windows is None else search_windows]
    recipe.topup.check_windows(*search.shape)
    receiver = progress_of(progress)
    with (
        _eval_mode(model),
        placed(model, device, offload, devices),
        replicated(model, settings.devices),
    ):
        decoder = DecoderModel(model, include, exclude)
        check_finite(model)
        costs = StageCosts(decoder.device)
        allocation = allocate(decoder, recipe, search, costs, receiver)
        masks = prune_stage(decoder, recipe, allocation, windows, costs, receiver)
    return PruningResult(
        allocation.plan,
        allocation.report,
        masks,
        masks.sparsity,
        costs.seconds,
        costs.calibration_tokens,
        Totals.of(decoder).shares(masks.sparsity),
    )


@contextmanager
def _eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Set `model` to evaluation mode inside the context, and restore its mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _method(group: str, method: Any) -> Any:
    """Return `method`, or the method of the option if it is a name."""
    return named_method(group, method) if isinstance(method, str) else method


def _ratio(sparsity: float | None, pattern: tuple[int, int] | None) -> float:
    """Return the share of zeros, which `pattern` determines unless it is None."""
    if pattern is None:
        ratio = 0.7 if sparsity is None else sparsity
    else:
        integers = len(pattern) == 2 and all(type(number) is int for number in pattern)
        if not (integers and 0 < pattern[0] < pattern[1]):
            raise UserError(f"pattern={pattern}: must be (N, M) with 0 < N < M, as in (2, 4)")
        ratio = 1 - pattern[0] / pattern[1]
        if sparsity is not None and not math.isclose(sparsity, ratio, abs_tol=1e-6):
            raise UserError(
                f"sparsity={sparsity}: contradicts pattern={pattern}, which prunes {ratio:.6g}; "
                "leave out one of them"
            )
    validation.check_ratio("sparsity", ratio)
    return ratio


def evaluate(
    model: PreTrainedModel,
    tokenizer: Any,
    tasks: str | Sequence[str] = "builtin",
    *,
    seqlen: int | None = None,
    limit: int | None = None,
    bos: str = "stream",
    fewshot: int | None = None,
    chat_template: bool = False,
    batch: int | None = None,
    data_root: str | None = None,
    progress: Progress | bool | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate `model` without pruning it.

    Args:
        model: a decoder-only model.
        tokenizer: its tokenizer.
        tasks: names as in ``task.names``: texts (perplexity), and tasks or groups of lm-eval.
        seqlen: tokens per window of a text; None: 2048, or the model's context if shorter.
        limit: maximum windows per text and documents per zero-shot task; None: all.
        bos: ``window`` replaces the first token of every window of a text by BOS; ``stream``, as in
            the paper, keeps the text.
        fewshot: examples in the prompts of lm-eval; None: as the task defines, and none for the
            seven tasks of the paper.
        chat_template: apply the tokenizer's chat template in tasks of lm-eval.
        batch: windows per forward pass, or requests of 1024 tokens; None: as memory allows.
        data_root: folder of local data sets; None: the Hugging Face cache, then the Hub.
        progress: True shows a bar for each stage on stderr; None and False show nothing; an object
            receives the updates (see `neuroal.tracking.progress.Progress`).

    Returns:
        Task → ``kind``, ``limit``, ``seqlen``, ``bos`` and figures: ``value``, ``stderr`` and
        ``windows`` of a text; ``acc``, ``acc_stderr``, …, ``documents`` and ``version`` of a
        zero-shot task; also ``value``, ``stderr`` and ``metric`` of another task of lm-eval.

    Raises:
        UserError: a value that cannot be used, or data that is not available.
    """
    warn_of_untested_versions()
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    check_choice("bos", bos, BOS)
    config = TaskConfig(
        names, seqlen, bos, limit, batch, fewshot=fewshot, chat_template=chat_template
    )
    validation.check_task(config)
    require(config, data_root)
    loaded = LoadedModel(model, tokenizer, model.name_or_path)
    prepared = prepare(config, tokenizer, loaded.context, data_root)
    with _eval_mode(model):
        evaluations = evaluate_tasks(loaded, prepared, batch, progress_of(progress), "evaluate")
        return {task.name: {**task.terms, **figures} for task, figures in evaluations}


def calibration_tokens(
    source: str | Path | Sequence[str],
    tokenizer: Any,
    *,
    windows: int = 128,
    seqlen: int | None = None,
    seed: int = 0,
    bos: str = "stream",
    data_root: str | None = None,
) -> Tensor:
    """Draw windows of token ids from a text, as a run does for calibration.

    Args:
        source: name of a calibration set (``builtin``, ``c4``, ``wikitext2``, ``ptb``,
            ``c4_sample``); path to a file (.txt, or .jsonl with a field ``text``, …); texts, or a
            `datasets.Dataset` with a column ``text``, which are joined by blank lines.
        tokenizer: the model's tokenizer.
        windows: number of windows.
        seqlen: tokens per window; None: 2048, or the tokenizer's ``model_max_length`` if less.
        seed: seed of the draw. The same seed gives the same first windows for any `windows`.
        bos: ``window`` replaces the first token of every window by BOS; ``stream``, as in the
            paper, keeps the text.
        data_root: folder of local data sets; None: the Hugging Face cache, then the hub.

    Returns:
        Token ids (windows, seqlen), int64.

    Raises:
        UserError: an invalid argument, a source that cannot be found, or a text that is too short.
    """
    validation.check_windows("windows", windows)
    validation.check_seed("seed", seed)
    if seqlen is None:
        seqlen = min(2048, int(getattr(tokenizer, "model_max_length", None) or 2048))
    if seqlen < 2:
        raise UserError(f"seqlen={seqlen}: must be at least 2")
    check_choice("bos", bos, BOS)
    text = calibration_text(source, data_root)
    return text.windows(tokenizer, windows, seqlen, seed, bos).tokens
