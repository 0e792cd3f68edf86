"""Do one run: calibrate → allocate → prune → evaluate → record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from neuroal.config.instantiate import build
from neuroal.config.schema import RunConfig, TaskConfig, default_seqlen
from neuroal.data.text import CalibrationText, Windows
from neuroal.evaluation.tasks import Task, evaluate_tasks, prepare, require
from neuroal.execution.costs import StageCosts
from neuroal.files.atomic import write_json
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import pick_devices, resolve_device
from neuroal.models.load import LoadedModel, load_model, save_model
from neuroal.pipeline import Recipe, allocate, prune
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.settings import PruningSettings
from neuroal.records.dense_cache import evaluate_cached
from neuroal.records.identity import environment, identity_of
from neuroal.records.resume import RunFiles, check_same_masks, open_run, saved_plan
from neuroal.records.schema import Record, first_record
from neuroal.records.store import prepare_out
from neuroal.records.summary import Summary
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.budget import Rules
from neuroal.tracking import Progress, TrackedProgress, progress_for_terminal, tracker_for


def run(
    config: RunConfig, progress: Progress | None = None, *, identity: str | None = None
) -> tuple[Record, Path]:
    """Do one run and write its record.

    A run that was started before is resumed: only its missing stages and tasks are done.

    Args:
        config: configuration of the run.
        progress: receives progress updates; None: bars on a terminal.
        identity: identity of `config`, if already computed; None: compute it.

    Returns:
        The record and its path.

    Raises:
        UserError: an invalid value in `config`; no record is written.
        Busy: another process is doing this run.
    """
    identity = identity or identity_of(config)
    with tracker_for(config, identity) as tracker:
        progress = progress or progress_for_terminal()
        if tracker:
            progress = TrackedProgress(progress, tracker)
        record, path = _run(config, identity, progress)
        if tracker:
            tracker.record(record, path)
    return record, path


def _run(config: RunConfig, identity: str, progress: Progress) -> tuple[Record, Path]:
    recipe, device = make_recipe(config), resolve_device(config.device)
    require(config.task.names, config.data.root)
    with open_run(prepare_out(config.out), identity) as files:
        record = files.record
        if record is None or _is_due(config, record, files):
            record = _work(_Job(config, recipe, files, StageCosts(device), progress))
        else:
            files.finish(None)  # an earlier run may have been interrupted after its last task
        if config.save.plan:
            write_json(Path(config.save.plan), saved_plan(record))
        return record, files.record_path


def _is_due(config: RunConfig, record: Record, files: RunFiles) -> bool:
    """Return whether outputs or tasks of `config` are missing."""
    needs_masks = config.save.masks and not files.has_masks()
    return bool(needs_masks or config.save.model or _due_tasks(config, record).names)


def _due_tasks(config: RunConfig, record: Record | None) -> TaskConfig:
    """Return the tasks of `config` without results in `record`."""
    if record is None:
        return config.task
    names = Summary.of(record.metrics, record.context, record.costs).lacks(config.task)
    return dataclasses.replace(config.task, names=names)


@dataclass(frozen=True, eq=False)
class _Job:
    """A run in progress."""

    config: RunConfig
    recipe: Recipe
    files: RunFiles
    costs: StageCosts
    progress: Progress


def _work(job: _Job) -> Record:
    """Do the missing stages of a run; return its record."""
    config, files, costs, progress = job.config, job.files, job.costs, job.progress
    text = CalibrationText.find(config.calibration, config.data.root)
    costs.resume(files.costs)
    out = files.record_path.parent
    with costs.stage("load"):
        loaded = load_model(config.model, costs.device, config.offload, out)
        decoder = DecoderModel(loaded.model, config.model.include, config.model.exclude)
    with costs.stage("calibrate"):
        pruning, search = calibration_windows(config, text, loaded)
        due = _due_tasks(config, files.record)
        tasks = prepare(due, loaded.tokenizer, loaded.context, config.data.root)
    with costs.stage("evaluate dense", more=True):
        dense = evaluate_cached(loaded, tasks, config.task.batch, out, progress, "evaluate dense")
    allocation = files.allocation or allocate(decoder, job.recipe, search.tokens, costs, progress)
    files.keep_allocation(allocation, costs.to_dict())
    masks = _restore_or_prune(job, decoder, allocation, pruning.tokens)
    record = files.record or first_record(
        identity=files.identity,
        config=dataclasses.asdict(config),
        environment=environment(costs.device),
        costs=costs.to_dict(),
        allocation=allocation,
        masks=masks,
        context=loaded.context,
    )
    check_same_masks(record, masks, costs.device)
    record = record.with_data(calibration=pruning.description, search=search.description)
    files.save(record)
    record = _evaluate_pruned(job, loaded, tasks, dense, record)
    if config.save.model:
        save_model(loaded, config.save.model, saved_plan(record))
    files.finish(masks if config.save.masks else None)
    return record


def _restore_or_prune(
    job: _Job, decoder: DecoderModel, allocation: Allocation, tokens: Tensor
) -> PackedMasks:
    """Apply the masks of an earlier start, or prune `decoder` and save its masks.

    Masks are saved only if they determine the model, that is if kept weights do not change.
    """
    masks = None if job.recipe.updates_weights else job.files.restore(decoder)
    if masks is None:
        masks = prune(decoder, job.recipe, allocation, tokens, job.costs, job.progress)
        if not job.recipe.updates_weights:
            job.files.keep_masks(masks)
            job.files.keep_allocation(allocation, job.costs.to_dict())
    return masks


def _evaluate_pruned(
    job: _Job,
    loaded: LoadedModel,
    tasks: Sequence[Task],
    dense: Mapping[str, dict[str, Any]],
    record: Record,
) -> Record:
    """Evaluate the pruned model; save and return the record with the figures of each task."""
    batch = job.config.task.batch
    evaluations = evaluate_tasks(loaded, tasks, batch, job.progress, "evaluate pruned")
    for task, figures in job.costs.each("evaluate", evaluations):
        metrics = {**task.terms, "dense": dense[task.name], "pruned": figures}
        record = record.with_task(task.name, task.description, metrics, job.costs.to_dict())
        job.files.save(record)
    return record


def make_recipe(config: RunConfig) -> Recipe:
    """Instantiate the methods of `config` and check that they can be combined."""
    settings = PruningSettings(
        pruner=build("pruner", config.pruner),
        sparsity=config.sparsity.ratio,
        rules=Rules(config.rules),
        group=config.sparsity.of,
        seed=config.seed,
        devices=pick_devices(resolve_device(config.device), config.devices),
        batch=config.batch,
    )
    recipe = Recipe(settings, build("topup", config.topup), build("refine", config.refine))
    recipe.check()
    return recipe


def calibration_windows(
    config: RunConfig, text: CalibrationText, loaded: LoadedModel
) -> tuple[Windows, Windows]:
    """Draw calibration windows for pruning and for the search, both from the same seed."""
    calibration = config.calibration
    seqlen = default_seqlen(calibration.seqlen, loaded.context, "calibration.seqlen")
    seed = config.seed if calibration.seed is None else calibration.seed
    drawn = (
        text.windows(loaded.tokenizer, calibration.windows, seqlen, seed),
        text.windows(loaded.tokenizer, calibration.search_windows, seqlen, seed),
    )
    for windows in drawn:
        loaded.check_tokens(windows.tokens, windows.source)
    return drawn
