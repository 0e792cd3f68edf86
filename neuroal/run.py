"""A run: calibrate → allocate → prune → evaluate → record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroal.config import RunConfig, TaskConfig, build
from neuroal.data.text import (
    Windows,
    calibration_windows,
    default_seqlen,
    evaluation_windows,
)
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import LoadedModel, load_model, resolve_device, save_model
from neuroal.models.replicas import spread
from neuroal.pipeline import Recipe, StageCosts, allocate_and_prune
from neuroal.pruners.budget import Rules
from neuroal.pruners.masks import digest
from neuroal.pruning import Pruned
from neuroal.records.identity import environment, identity
from neuroal.records.schema import Record
from neuroal.records.store import prepare_out, save_masks, save_record, write_json
from neuroal.topups.base import Allocation
from neuroal.tracking import Progress, TrackedProgress, progress_for_terminal, tracker_for


def run(config: RunConfig, progress: Progress | None = None) -> tuple[Record, Path]:
    """Do one run and write its record.

    Returns:
        The record and its path.

    Raises:
        UserError: a mistake in `config`; nothing has been written then.
    """
    with tracker_for(config, identity(config, {})) as tracker:
        shown = TrackedProgress(progress or progress_for_terminal(), tracker)
        record, path = _run(config, shown)
        tracker.record(record, path)
    return record, path


def _run(config: RunConfig, progress: Progress) -> tuple[Record, Path]:
    recipe = make_recipe(config)
    out, device = prepare_out(config.out), resolve_device(config.device)
    costs = StageCosts(device)
    with costs.stage("load"):
        loaded = load_model(config.model, device, config.offload, out)
        subject = DecoderModel(loaded.model, config.model.include, config.model.exclude)
    with costs.stage("calibrate"):
        pruning, search = calibration_for(config, loaded)
        tasks = _task_windows(config, loaded)
    with costs.stage("evaluate dense"):
        dense = _evaluate(loaded, tasks, config.task, progress, "evaluate dense")
    allocation, pruned = allocate_and_prune(
        subject, recipe, search.tokens, pruning.tokens, costs, progress
    )
    with costs.stage("evaluate"):
        sparse = _evaluate(loaded, tasks, config.task, progress, "evaluate pruned")
    data = {"calibration": pruning, "search": search, **tasks}
    record = Record(
        identity=identity(config, {name: found.fingerprint for name, found in data.items()}),
        config=dataclasses.asdict(config),
        environment=environment(device),
        data={n: {"source": w.source, "fingerprint": w.fingerprint} for n, w in data.items()},
        costs=costs.to_dict(),
        plan={**allocation.plan.to_dict(), "report": dict(allocation.report)},
        sparsity=_achieved(pruned),
        masks={key: digest(mask) for key, mask in pruned.masks.items()},
        metrics={name: {"dense": dense[name], "pruned": sparse[name]} for name in tasks},
    )
    _save(config, loaded, allocation, pruned, out / f"{record.identity}.masks.npz")
    return record, save_record(record, out)


def make_recipe(config: RunConfig) -> Recipe:
    """Build the methods and check that they go together."""
    recipe = Recipe(
        pruner=build("pruner", config.pruner),
        topup=build("topup", config.topup),
        sparsity=config.sparsity.ratio,
        rules=Rules(config.rules),
        batch=config.batch,
        refine=build("refine", config.refine),
        group=config.sparsity.of,
        seed=config.seed,
        devices=spread(resolve_device(config.device), config.devices),
    )
    recipe.check()
    return recipe


def calibration_for(config: RunConfig, loaded: LoadedModel) -> tuple[Windows, Windows]:
    """Windows for pruning and, drawn anew with the same seed, for the search."""
    calibration = config.calibration
    seqlen = default_seqlen(calibration.seqlen, loaded.context, "calibration.seqlen")
    seed = config.seed if calibration.seed is None else calibration.seed
    pruning, search = (
        calibration_windows(calibration, loaded.tokenizer, count, seqlen, seed, config.data.root)
        for count in (calibration.windows, calibration.search_windows)
    )
    return pruning, search


def _task_windows(config: RunConfig, loaded: LoadedModel) -> dict[str, Windows]:
    task = config.task
    seqlen = default_seqlen(task.seqlen, loaded.context, "task.seqlen")
    return {
        name: evaluation_windows(name, loaded.tokenizer, seqlen, task.limit, config.data.root)
        for name in task.names
    }


def _evaluate(
    loaded: LoadedModel,
    tasks: Mapping[str, Windows],
    task: TaskConfig,
    progress: Progress,
    stage: str,
) -> dict[str, dict[str, Any]]:
    results = {}
    with progress.stage(stage, len(tasks), "task") as step:
        for name, windows in tasks.items():
            found = perplexity(loaded.model, windows.tokens, batch=task.batch or 8)
            results[name] = dataclasses.asdict(found)
            step.advance(1, perplexity=found.value)
    return results


def _achieved(pruned: Pruned) -> dict[str, Any]:
    linears = {key: float(mask.double().mean()) for key, mask in pruned.masks.items()}
    return {"overall": pruned.sparsity, "linears": linears}


def _save(
    config: RunConfig, loaded: LoadedModel, allocation: Allocation, pruned: Pruned, masks: Path
) -> None:
    plan = allocation.plan.to_dict()
    if config.save.plan:
        write_json(Path(config.save.plan), plan)
    if config.save.model:
        save_model(loaded, config.save.model, plan)
    if config.save.masks:
        save_masks(pruned.masks, masks)
