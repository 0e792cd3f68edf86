"""A run: calibrate → allocate → prune → evaluate → record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from neuroal.config import RunConfig, TaskConfig, default_seqlen
from neuroal.data.text import Windows, calibration_windows
from neuroal.data.text import require as require_text
from neuroal.evaluation.tasks import prepare, require
from neuroal.measure import MEASURED, measure, measure_once
from neuroal.methods import build
from neuroal.models.adapter import DecoderModel
from neuroal.models.load import LoadedModel, load_model, resolve_device, save_model
from neuroal.models.replicas import spread
from neuroal.pipeline import Recipe, StageCosts, allocate, prune
from neuroal.pruners.budget import Rules
from neuroal.pruning import Pruned
from neuroal.records.files import write_json
from neuroal.records.identity import environment, identity
from neuroal.records.schema import Record
from neuroal.records.stages import Stages, check_same, plan_of, planned, stages_of
from neuroal.records.store import prepare_out
from neuroal.records.summary import Summary
from neuroal.topups.base import Allocation
from neuroal.tracking import Progress, TrackedProgress, progress_for_terminal, tracker_for


def run(config: RunConfig, progress: Progress | None = None) -> tuple[Record, Path]:
    """Do one run and write its record; of one that was begun before, only what is missing.

    Returns:
        The record and its path.

    Raises:
        UserError: a mistake in `config`; nothing has been written then.
        Busy: another process is at this run.
    """
    with tracker_for(config, identity(config)) as tracker:
        shown = TrackedProgress(progress or progress_for_terminal(), tracker)
        record, path = _run(config, shown)
        tracker.record(record, path)
    return record, path


def _run(config: RunConfig, progress: Progress) -> tuple[Record, Path]:
    recipe, device = make_recipe(config), resolve_device(config.device)
    require(config.task.names, config.data.root)
    with stages_of(prepare_out(config.out), identity(config)) as stages:
        record = stages.record
        if record is None or _is_due(config, record, stages):
            record = _work(config, recipe, stages, StageCosts(device), progress)
        else:
            stages.finish(None)  # it may have been cut off after its last task
        if config.save.plan:
            write_json(Path(config.save.plan), plan_of(record))
        return record, stages.record_path


def _is_due(config: RunConfig, record: Record, stages: Stages) -> bool:
    """Whether something is asked for that is not there yet."""
    wants_masks = config.save.masks and not stages.has_masks()
    return bool(wants_masks or config.save.model or _due(config, record).names)


def _due(config: RunConfig, record: Record | None) -> TaskConfig:
    """The tasks of `config` that `record` lacks."""
    if record is None:
        return config.task
    lacking = Summary.of(record.metrics, record.context, record.costs).lacks(config.task)
    return dataclasses.replace(config.task, names=lacking)


def _work(
    config: RunConfig, recipe: Recipe, stages: Stages, costs: StageCosts, progress: Progress
) -> Record:
    root, batch = config.data.root, config.task.batch
    require_text(config.calibration.name, "calibration", root)
    costs.resume(stages.costs)
    with costs.stage("load"):
        out = stages.record_path.parent
        loaded = load_model(config.model, costs.device, config.offload, out)
        subject = DecoderModel(loaded.model, config.model.include, config.model.exclude)
    with costs.stage("calibrate"):
        pruning, search = calibration_for(config, loaded)
        tasks = prepare(_due(config, stages.record), loaded.tokenizer, loaded.context, root)
    with costs.stage("evaluate dense", more=True):
        shelf = stages.record_path.parent / MEASURED
        dense = measure_once(loaded, tasks, batch, shelf, progress, "evaluate dense")
    allocation = stages.allocation or allocate(subject, recipe, search.tokens, costs, progress)
    stages.keep_allocation(allocation, costs.to_dict())
    pruned = None if recipe.updates_weights else stages.restore(subject)
    if pruned is None:
        pruned = prune(subject, recipe, allocation.plan, pruning.tokens, costs, progress)
        if not recipe.updates_weights:
            stages.keep_masks(pruned)
            stages.keep_allocation(allocation, costs.to_dict())
    record = stages.record or _first_record(config, allocation, pruned, costs, loaded)
    check_same(record, pruned, costs.device)
    data = {"calibration": pruning.description, "search": search.description}
    stages.save(record := dataclasses.replace(record, data={**record.data, **data}))
    measured = measure(loaded, tasks, batch, progress, "evaluate pruned")
    for task, figures in costs.each("evaluate", measured):
        found = {**task.terms, "dense": dense[task.name], "pruned": figures}
        stages.save(record := record.grown(task.name, task.description, found, costs.to_dict()))
    if config.save.model:
        save_model(loaded, config.save.model, plan_of(record))
    stages.finish(pruned if config.save.masks else None)
    return record


def _first_record(
    config: RunConfig,
    allocation: Allocation,
    pruned: Pruned,
    costs: StageCosts,
    loaded: LoadedModel,
) -> Record:
    """The record of a pruned model that nothing has been measured of."""
    return Record(
        identity=identity(config),
        config=dataclasses.asdict(config),
        environment=environment(costs.device),
        data={},
        costs=costs.to_dict(),
        plan=planned(allocation),
        sparsity=_achieved(pruned),
        masks=pruned.masks.digests(),
        metrics={},
        context=loaded.context,
    )


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


def _achieved(pruned: Pruned) -> dict[str, Any]:
    return {"overall": pruned.sparsity, "linears": pruned.masks.sparsities()}
