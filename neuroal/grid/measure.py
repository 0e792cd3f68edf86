"""Measure the speed of a machine by short parts of the runs of a grid."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from neuroal.config.schema import RunConfig
from neuroal.config.search_windows import search_windows
from neuroal.data.text import CalibrationText
from neuroal.evaluation.perplexity import perplexity
from neuroal.evaluation.tasks import (
    HarnessTask,
    PerplexityTask,
    Task,
    evaluate_tasks,
    prepare,
)
from neuroal.execution.costs import StageCosts
from neuroal.execution.memory import ENOUGH_TOKENS
from neuroal.grid.sampling import sampled
from neuroal.models.adapter import DecoderModel
from neuroal.models.devices import resolve_device
from neuroal.models.fingerprint import fingerprint
from neuroal.models.load import load_model
from neuroal.models.shape import ModelShape, shape_of
from neuroal.pipeline import allocate, calibration_windows, make_recipe, prune
from neuroal.records.identity import environment
from neuroal.records.rates import FIRST, Observation, card_of, keep, rates_path
from neuroal.records.work import (
    DOCUMENTS_OF_TASKS,
    FINGERPRINT,
    FORWARD,
    PASS,
    STEP,
    document_tokens,
    parts_of,
    work_of,
)
from neuroal.sparsity.allocation import Allocation
from neuroal.sparsity.plan import uniform_plan
from neuroal.tracking.progress import Progress, QuietProgress

log = logging.getLogger(__name__)
WINDOWS, TOKENS = 8, 512
"""Windows of the pass, and most tokens of each."""
FEW_TOKENS = 16
"""Tokens of a pass whose time hardly depends on them."""
FEW_ON_CPU = 4096
"""Calibration tokens by which a pruner is measured on a CPU."""
MORE_DOCUMENTS = 16
"""Documents of a task by whose additional time that of a document is measured."""
MOST_TASKS = 2
"""Tasks of which more than one document is evaluated."""
LEAST_SHARE = 0.1
"""Least share of the time of pruning that is not that of forward passes."""


def measure(configs: Sequence[RunConfig]) -> list[Observation]:
    """Time short parts of the runs `configs`; keep and return the observations.

    Every model is loaded once. Texts are read in full; of each other stage, a part is done whose
    time gives that of the whole (`records.work.parts_of`).
    """
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        key = f"{config.model} {config.device} {config.devices} {config.offload}"
        groups.setdefault(key, []).append(config)
    observations: list[Observation] = []
    for group in groups.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that of few windows
            observations += _Measurement(group[0]).of(group)
    if not keep(observations):
        log.warning("%s: cannot be written; later plans lack what was measured", rates_path())
    return observations


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Calibration and search windows (windows, seqlen), and tasks of a run."""

    pruning: Tensor
    search: Tensor
    tasks: list[Task]


def _key(config: RunConfig) -> str:
    """Return the settings on which the texts of a run depend."""
    return f"{config.calibration} {search_windows(config)} {config.seed} {config.task}"


class _Measurement:
    """One loaded model, and what was observed of it."""

    def __init__(self, config: RunConfig) -> None:
        self._device = resolve_device(config.device)
        self._card = card_of(config, str(environment(self._device)["device"]))
        self._path = config.model.path
        begin = time.perf_counter()
        self._loaded = load_model(config.model, self._device, config.offload, None, config.devices)
        seconds = time.perf_counter() - begin
        count = sum(parameter.numel() for parameter in self._loaded.model.parameters())
        self._shape = shape_of(config.model) or ModelShape(float(count), 1, 1, 1, 1, 2048)
        self._own: list[Observation] = []
        self._observe("load", self._shape.parameters, seconds)

    def of(self, configs: Sequence[RunConfig]) -> list[Observation]:
        """Return the observations of all parts of `configs`."""
        self._passes()
        inputs: dict[str, _Inputs] = {}
        for config in configs:
            if _key(config) not in inputs:
                inputs[_key(config)] = self._read(config)
        tasks = {task.name: task for read in inputs.values() for task in read.tasks}
        harness = [task for task in tasks.values() if not isinstance(task, PerplexityTask)]
        self._documents(harness, configs[0].task.batch)
        for config in configs:
            self._search(config, inputs[_key(config)].search)
        for config in configs:  # last, as this changes the model
            self._prune(config, inputs[_key(config)].pruning)
        return self._own

    def _observe(self, stage: str, work: float, seconds: float) -> None:
        self._own.append(Observation(self._card, self._path, stage, work, seconds))

    def _has(self, stage: str, work: float | None = None) -> bool:
        return any(o.stage == stage and work in (None, o.work) for o in self._own)

    def _rate(self, stage: str) -> float:
        return next(o.seconds / o.work for o in self._own if o.stage == stage)

    def _seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds of `work`; a GPU is synchronised before and after."""
        costs = StageCosts(self._device)
        with costs.stage("part"):
            work()
        return costs.seconds["part"]

    def _passes(self) -> None:
        """Observe a pass over long windows and one over few tokens, and hashing the weights."""
        model, seqlen = self._loaded.model, min(TOKENS, self._loaded.context)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._loaded.vocabulary, (WINDOWS, seqlen), generator=generator)
        parameters, few = self._shape.parameters, tokens[:1, :FEW_TOKENS]
        for part, work, windows in (
            (PASS, 2 * parameters * tokens.numel(), tokens),
            (STEP, 1.0, few),
        ):
            perplexity(model, windows[:1])  # warms up
            self._observe(part, work, self._seconds(partial(perplexity, model, windows)))
        self._observe(FINGERPRINT, parameters, self._seconds(lambda: fingerprint(model)))

    def _read(self, config: RunConfig) -> _Inputs:
        """Read the texts of a run, and observe the time."""
        begin = time.perf_counter()
        text = CalibrationText.find(config.calibration, config.data.root)
        pruning, search = calibration_windows(config, text, self._loaded)
        tokenizer, context = self._loaded.tokenizer, self._loaded.context
        tasks = prepare(config.task, tokenizer, context, config.data.root)
        seconds = time.perf_counter() - begin
        stage = f"calibrate {config.calibration.name}"
        work = work_of(config, self._shape)[stage]
        if not self._has(stage, work):
            self._observe(stage, work, seconds)
        return _Inputs(pruning.tokens, search.tokens, tasks)

    def _documents(self, tasks: Sequence[Task], batch: int | None) -> None:
        """Observe a document of every task of lm-eval, and more of them in the first ones."""
        if tasks:
            begin = time.perf_counter()
            self._evaluate(tasks[0], 1, batch)  # imports lm-eval
            warm = self._evaluate(tasks[0], 1, batch)
            first = max(0.0, time.perf_counter() - begin - 2 * warm)
            self._observe(f"{FIRST} {FORWARD}", 1.0, first)
        seconds = tokens = 0.0
        for number, task in enumerate(tasks):
            fixed = self._evaluate(task, 1, batch)
            self._observe(f"task {task.name}", 1.0, fixed)
            if number < MOST_TASKS:
                seconds += max(0.0, self._evaluate(task, 1 + MORE_DOCUMENTS, batch) - fixed)
                tokens += MORE_DOCUMENTS * document_tokens(task.name)
        if tokens:
            self._observe(DOCUMENTS_OF_TASKS, tokens, seconds)

    def _evaluate(self, task: Task, limit: int, batch: int | None) -> float:
        """Return the seconds of `limit` documents of a task."""
        few = with_limit(task, limit)
        evaluations = evaluate_tasks(self._loaded, [few], batch, QuietProgress(), "evaluate")
        return self._seconds(lambda: list(evaluations))

    def _search(self, config: RunConfig, tokens: Tensor) -> None:
        """Observe a brief search of a top-up, if its time is not mainly that of the pruner."""
        parts = parts_of(config, self._shape)
        stage = next(name for name in parts if name.startswith("allocate"))
        part = stage.replace("allocate", "search")
        if part not in parts[stage] or self._has(part):
            return
        recipe, windows = make_recipe(config), len(tokens)
        brief, passes = recipe.topup.brief(), recipe.topup.search_passes(windows)
        share = brief.search_passes(windows) / passes if passes else 1.0
        recipe, work = dataclasses.replace(recipe, topup=brief), share * parts[stage][part]
        decoder = self._decoder(config)

        def search(progress: Progress) -> None:
            allocate(decoder, recipe, tokens, StageCosts(self._device), progress)

        self._twice(stage, part, work, search)

    def _prune(self, config: RunConfig, tokens: Tensor) -> None:
        """Observe what pruning takes besides forward passes."""
        parts = parts_of(config, self._shape)
        stage = next(name for name in parts if name.startswith("prune"))
        part = next(name for name in parts[stage] if name != PASS)
        if self._has(part):
            return
        few = ENOUGH_TOKENS if self._device.type == "cuda" else FEW_ON_CPU
        tokens = tokens[: max(1, few // tokens.shape[1])]
        recipe, decoder = make_recipe(config), self._decoder(config)
        allocation = Allocation(uniform_plan(decoder, recipe.settings.sparsity), {})

        def pruning(progress: Progress) -> None:
            prune(decoder, recipe, allocation, tokens, StageCosts(self._device), progress)

        passes = 2 * 2 * self._shape.parameters * tokens.numel() * self._rate(PASS)
        self._twice(stage, part, self._shape.parameters, pruning, besides=passes)

    def _twice(
        self,
        stage: str,
        part: str,
        work: float,
        act: Callable[[Progress], None],
        besides: float = 0.0,
    ) -> None:
        """Observe `act` without the seconds `besides`; on a GPU, what its first time takes too."""
        first = seconds = sampled(act)
        if self._device.type == "cuda":
            seconds = sampled(act)
            self._observe(f"{FIRST} {stage}", 1.0, max(0.0, first - seconds))
        self._observe(part, work, max(seconds - besides, LEAST_SHARE * seconds))

    def _decoder(self, config: RunConfig) -> DecoderModel:
        return DecoderModel(self._loaded.model, config.model.include, config.model.exclude)


def with_limit(task: Task, limit: int) -> Task:
    """Return `task` with at most `limit` documents or windows."""
    if isinstance(task, HarnessTask):
        config = dataclasses.replace(task.harness.config, limit=limit)
        return dataclasses.replace(task, harness=dataclasses.replace(task.harness, config=config))
    return dataclasses.replace(task, limit=limit)
