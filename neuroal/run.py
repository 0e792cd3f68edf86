"""Do one run: calibrate → allocate → prune → evaluate → record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from neuroal.config.schema import RunConfig, TaskConfig
from neuroal.data.text import CalibrationText
from neuroal.errors import UserError
from neuroal.evaluation.continuations import Samples
from neuroal.evaluation.samples import samples_path, take_samples
from neuroal.evaluation.tasks import Task, evaluate_tasks, prepare, require
from neuroal.execution.costs import StageCosts
from neuroal.files.machine import machine_errors
from neuroal.files.outputs import ModelFolder
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import resolve_device
from neuroal.models.last import LastModel
from neuroal.models.load import LoadedModel, load_model
from neuroal.models.save import save_model, saved_dtype
from neuroal.models.totals import Totals
from neuroal.parallel.replicated import copy_to_all, replicated, starting
from neuroal.pipeline import Recipe, allocate, calibration_windows, make_recipe, prune
from neuroal.pruners.packed import PackedMasks
from neuroal.pruners.prune_model import apply_masks
from neuroal.records.contents import Contents
from neuroal.records.dense_cache import Abandoned, DenseFigures
from neuroal.records.identity import environment, identity_of, note_former_record
from neuroal.records.model_card import model_card
from neuroal.records.outputs import Outputs, structure_of
from neuroal.records.rates import keep_run
from neuroal.records.result_line import result_line
from neuroal.records.resume import RunFiles, check_same_masks, open_run, saved_plan
from neuroal.records.schema import Record, first_record
from neuroal.records.store import prepare_out
from neuroal.records.summary import Summary
from neuroal.sparsity.allocation import Allocation
from neuroal.tracking import Progress, TrackedProgress, progress_for, progress_of, tracker_for
from neuroal.tracking.log_file import LoggedProgress, log_file

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    progress: Progress | bool | None = None,
    *,
    identity: str | None = None,
    models: LastModel | None = None,
) -> tuple[Record, Path]:
    """Do one run and write its record.

    A run that was started before is resumed: only its missing stages and tasks are done.

    Args:
        config: configuration of the run.
        progress: receives progress updates; None: as ``progress`` of `config` says; True and False:
            bars, or nothing.
        identity: identity of `config`, if already computed; None: compute it.
        models: loads the model, for many runs of one process; None: read it from its files.

    Returns:
        The record and its path.

    Raises:
        UserError: an invalid value in `config`; no record is written.
        MachineError: no space, memory or permission; finished stages are kept.
        Busy: another process is doing this run.
    """
    contents = Contents()
    identity = identity or identity_of(config, contents)
    with machine_errors(f"out={config.out}"), tracker_for(config, identity) as tracker:
        shown = progress_for(config.progress) if progress is None else progress_of(progress)
        receiver: Progress = LoggedProgress(shown)
        if tracker:
            receiver = TrackedProgress(receiver, tracker)
        record, path = _run(config, identity, contents, receiver, models)
        if tracker:
            tracker.record(record, path)
    return record, path


def _run(
    config: RunConfig,
    identity: str,
    contents: Contents,
    progress: Progress,
    models: LastModel | None,
) -> tuple[Record, Path]:
    if config.task.speed:
        raise UserError("task.speed=true: measures a saved model; use it with neuroal-eval")
    recipe, device = make_recipe(config), resolve_device(config.device)
    require(config.task, config.data.root)
    with open_run(prepare_out(config.out), identity, force=config.force) as files:
        contents.bind(config)
        outputs = Outputs.of(config.save, identity)
        outputs.prepare(again=config.force)
        record = files.record
        costs, data = StageCosts(device), contents.tasks(config)
        load = models.load if models else load_model
        job = _Job(config, recipe, files, outputs, costs, progress, data, load)
        if record is None or _is_due(job, record):
            note_former_record(config)
            with log_file(files.record_path.with_suffix(".log")) as write:
                record = _work(job)
                write(result_line(config, record, files.record_path))
            keep_run(config, record)
        else:
            files.finish(None)  # an earlier run may have been interrupted after its last task
            log.info("already done: %s; force=true does it again", files.record_path)
        if outputs.lacks_plan(saved_plan(record), again=config.force):
            outputs.write_plan(saved_plan(record))
        return record, files.record_path


@dataclass(frozen=True, eq=False)
class _Job:
    """A run in progress.

    `data` is the content of each task's data; `load` loads the model, as `load_model` does.
    """

    config: RunConfig
    recipe: Recipe
    files: RunFiles
    outputs: Outputs
    costs: StageCosts
    progress: Progress
    data: Mapping[str, str | None]
    load: Callable[..., LoadedModel]

    @contextmanager
    def stage(self, name: str, costs: str) -> Iterator[None]:
        """Show a stage of one unit, with its costs."""
        with self.progress.stage(name, 1, "step") as step, self.costs.stage(costs):
            yield
            step.advance()


def _is_due(job: _Job, record: Record) -> bool:
    """Return whether outputs or tasks of a run are missing."""
    needs_masks = job.config.save.masks and not job.files.has_masks()
    due = _due_tasks(job, record)
    return bool(needs_masks or job.outputs.lacks_model() or due.names or due.samples)


def _due_tasks(job: _Job, record: Record | None) -> TaskConfig:
    """Return the tasks of a run without results in `record`, and the samples if it lacks some."""
    task = job.config.task
    if record is None:
        return task
    summary = Summary.of(record.metrics, record.context, record.costs, record.samples)
    samples = task.samples if summary.lacks_samples(task) else 0
    return dataclasses.replace(task, names=summary.lacks(task, job.data), samples=samples)


def _work(job: _Job) -> Record:
    """Load the model and do the missing stages of a run; return its record.

    Start again if another process dies whose figures of the dense model this run waits for.
    """
    while True:
        try:
            return _attempt(job)
        except Abandoned as reason:
            log.info("%s; this process takes over", reason)
            job.files.read()


def _attempt(job: _Job) -> Record:
    """Load the model and do the missing stages of a run; return its record."""
    config, costs = job.config, job.costs
    text = CalibrationText.find(config.calibration, config.data.root)
    costs.resume(job.files.costs)
    scratch, devices = job.files.scratch, job.recipe.settings.devices
    with starting(devices) as group:
        with job.stage("load model", "load"):
            loaded = job.load(config.model, costs.device, config.offload, scratch, config.devices)
        with replicated(loaded.model, devices, group):
            return _stages(job, loaded, text)


def _stages(job: _Job, loaded: LoadedModel, text: CalibrationText) -> Record:
    """Do the missing stages of a run after loading; return its record."""
    config, files, costs, progress = job.config, job.files, job.costs, job.progress
    out = files.record_path.parent
    decoder = DecoderModel(loaded.model, config.model.include, config.model.exclude)
    with job.stage("read texts", "calibrate"):
        pruning, search = calibration_windows(config, text, loaded)
        due = _due_tasks(job, files.record)
        tasks = prepare(due, loaded.tokenizer, loaded.context, config.data.root)
    dense = DenseFigures(loaded, tasks, out)
    with costs.stage("evaluate dense", more=True):
        dense.evaluate(config.task.batch, progress, "evaluate dense")
    samples = _samples_before(job, loaded, due.samples)
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
        totals=Totals.of(decoder),
        context=loaded.context,
    )
    check_same_masks(record, masks, costs.device)
    record = record.with_data(calibration=pruning.description, search=search.description)
    files.save(record)
    record = _evaluate_pruned(job, loaded, tasks, dense, record)
    if samples is not None:
        record = _with_samples(job, samples, record)
    if job.outputs.model is not None and (config.force or job.outputs.lacks_model()):
        _save_model(job, job.outputs.model, loaded, record)
    files.finish(masks if config.save.masks else None)
    return record


def _restore_or_prune(
    job: _Job, decoder: DecoderModel, allocation: Allocation, tokens: Tensor
) -> PackedMasks:
    """Apply the masks of an earlier start, or prune `decoder` and save its masks.

    A pruner that updates weights prunes again, to the masks of the earlier start.
    """
    stored = job.files.masks(decoder)
    if stored is not None and not job.recipe.updates_weights:
        apply_masks(decoder, stored)
        copy_to_all(decoder.model)
        return stored
    masks = prune(decoder, job.recipe, allocation, tokens, job.costs, job.progress, masks=stored)
    if stored is not None:
        log.info("resumed with the masks of the first attempt%s", masks.comparison(decoder.numel))
    job.files.keep_masks(masks)
    job.files.keep_allocation(allocation, job.costs.to_dict())
    return masks


def _evaluate_pruned(
    job: _Job, loaded: LoadedModel, tasks: Sequence[Task], dense: DenseFigures, record: Record
) -> Record:
    """Evaluate the pruned model; save and return the record with the figures of each task."""
    batch = job.config.task.batch
    evaluations = evaluate_tasks(loaded, tasks, batch, job.progress, "evaluate pruned")
    for task, before, measured in dense.beside(job.costs.each("evaluate", evaluations)):
        path = samples_path(job.files.record_path.parent, record.identity, task.name)
        figures = take_samples(measured, path)
        terms = {**task.terms, "content": job.data[task.name]}
        metrics = {**terms, "dense": before, "pruned": figures}
        record = record.with_task(task.name, task.description, metrics, job.costs.to_dict())
        job.files.save(record)
    return record


def _samples_before(job: _Job, loaded: LoadedModel, count: int) -> Samples | None:
    """Continue `count` prompts with the dense model; return None if there are none."""
    if count == 0:
        return None
    with job.costs.stage("samples"):
        return Samples.before(loaded, count, job.progress)


def _with_samples(job: _Job, samples: Samples, record: Record) -> Record:
    """Continue the prompts with the pruned model; save and return the record with all texts."""
    with job.costs.stage("samples", more=True):
        texts = tuple(samples.after(job.progress))
    record = dataclasses.replace(record, samples=texts, costs=job.costs.to_dict())
    job.files.save(record)
    return record


def _save_model(job: _Job, target: ModelFolder, loaded: LoadedModel, record: Record) -> None:
    """Save the pruned model with its model card."""
    with job.progress.stage("save model", 1, "step") as step:
        own = record.with_config(dataclasses.asdict(job.config))
        card = model_card(own, saved_dtype(loaded), loaded.stored_dtype)
        save_model(loaded, target, saved_plan(record), card, structure_of(record))
        step.advance()
