"""Zero-shot tasks: lm-eval's own task definitions, evaluated on local data files."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.tasks
import lm_eval.utils
import torch
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from neuroal.data.resolve import DataSplit
from neuroal.data.sets import data_set
from neuroal.evaluation.batching import batch_for_logits
from neuroal.evaluation.scoring import Request, log_likelihoods
from neuroal.evaluation.task_table import TASKS
from neuroal.execution.oom import AdaptiveBatch
from neuroal.models.tokens import check_tokens
from neuroal.tracking.progress import Portion

DEFINITIONS = Path(lm_eval.tasks.__file__).parent
FEWSHOT_SEED = 1234
"""Default of lm-eval. It has no effect, because prompts contain no examples."""
LONGEST = 1024
"""Tokens of the longest request, which batches are counted in (BoolQ has the longest passages)."""


def zero_shot(
    model: Any,
    tokenizer: Any,
    name: str,
    data: DataSplit,
    limit: int | None = None,
    batch: int | None = None,
    portion: Portion | None = None,
) -> dict[str, Any]:
    """Evaluate `model` on task `name` without examples in the prompt.

    Args:
        model: causal language model of `transformers`.
        tokenizer: tokenizer of the model; not modified.
        name: a zero-shot task of `TASKS`.
        data: documents of the task's evaluation split.
        limit: number of documents to use, from the first; None: all.
        batch: a forward pass has the tokens of this many longest requests (`LONGEST`), and so
            more of shorter ones, on a CPU at most those of one; None: chosen by free memory.
        portion: receives the share of the requests that is complete; None: nothing is shown.

    Returns:
        ``acc`` and ``acc_stderr``; for tasks that define it, ``acc_norm`` and ``acc_norm_stderr``
        (accuracy by log-likelihood per byte of the answer); ``documents``, their number; and
        ``version``, the versions of lm-eval and of the task definition.
    """
    figures = zero_shot_with_samples(model, tokenizer, name, data, limit, batch, portion)
    return {key: value for key, value in figures.items() if key != "samples"}


def zero_shot_with_samples(
    model: Any,
    tokenizer: Any,
    name: str,
    data: DataSplit,
    limit: int | None,
    batch: int | None,
    portion: Portion | None = None,
) -> dict[str, Any]:
    """Return the result of `zero_shot`, and ``samples``: task → rows of lm-eval."""
    scratch = tempfile.TemporaryDirectory(prefix="neuroal-")
    with scratch as folder, quiet(portion), templates_compiled_once():
        path = write_task(Path(folder), name, data)
        results = AdaptiveBatch("evaluate", batch or batch_for(model)).run(
            lambda size: _evaluate(model, tokenizer, path, limit, size)
        )
    return {**_figures(name, results), "samples": results["samples"]}


def batch_for(model: Any) -> int:
    """Return the number of longest requests in one forward pass that free memory allows."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST)
    return batch_for_logits(model, min(LONGEST, int(context)))


def write_task(folder: Path, name: str, data: DataSplit) -> Path:
    """Write the stock definition of `name` on the files of `data` to FOLDER/NAME.yaml.

    lm-eval's own command reads the file as well: ``lm_eval --tasks FOLDER/NAME.yaml``.
    """
    split = data_set(name).evaluation
    kind = "parquet" if data.files[0].suffix == ".parquet" else "json"
    definition = {
        "include": str(DEFINITIONS / str(TASKS[name].harness)),
        "dataset_path": kind,
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: [str(path.absolute()) for path in data.files]},
            "cache_dir": str(folder / "cache"),
        },
        "training_split": None,
        "validation_split": split if split == "validation" else None,
        "test_split": split if split == "test" else None,
        "fewshot_split": None,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return path


def _evaluate(
    model: Any, tokenizer: Any, path: Path, limit: int | None, batch: int
) -> Mapping[str, Any]:
    loaded = TaskManager(include_defaults=False).load([str(path)])
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    scorer = scorer_of(model, tokenizer, batch)
    results: Mapping[str, Any] = evaluate(scorer, loaded, limit=limit, log_samples=True)
    return results


def scorer_of(model: Any, tokenizer: Any, batch: int) -> HFLM:
    """Return the model of lm-eval for `model`.

    lm-eval adds a padding token to its tokenizer; the model's own does not change.
    """
    return _Scorer(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch)


class _Scorer(HFLM):  # type: ignore[misc]
    """Model of lm-eval that scores whole batches, and checks token ids and scores."""

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        ids = {token for _, *parts in requests for tokens in parts for token in tokens}
        check_tokens(self.model, torch.tensor(sorted(ids)), "task: a request has")
        size = self.batch_size * min(LONGEST, self.max_length)
        if self.model.device.type == "cpu":
            size = min(size, LONGEST)  # more tokens overflow its caches
        part_of_task = disable_tqdm or override_bs is not None  # a batch of rolling windows
        with lm_eval.models.huggingface.tqdm(total=len(requests), disable=part_of_task) as bar:
            scores = log_likelihoods(
                self.model,
                requests,
                self.max_length,
                size,
                self.softmax_dtype,
                bar.update,
            )
        if wrong := sum(not math.isfinite(score) for score, _ in scores):
            warnings.warn(
                f"model: {wrong} of {len(scores)} log-likelihoods are not finite, so accuracies "
                "mean nothing; try model.dtype=float32 or bfloat16",
                stacklevel=2,
            )
        return scores


def _figures(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    measured = results["results"][name]
    figures: dict[str, Any] = {
        key: float(measured[f"{key},none"])
        for key in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr")
        if isinstance(measured.get(f"{key},none"), int | float)
    }
    figures["documents"] = int(results["n-samples"][name]["effective"])
    figures["version"] = {"lm_eval": version("lm_eval"), "task": results["versions"][name]}
    return figures


@contextmanager
def quiet(portion: Portion | None = None) -> Iterator[None]:
    """Silence the libraries except for errors; `portion` receives what their bars would show."""
    with ExitStack() as stack:
        for name in ("lm_eval", "lm-eval", "datasets", "transformers"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        counting = {lm_eval.models.huggingface: portion}
        for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface):
            stack.callback(setattr, module, "tqdm", module.tqdm)
            module.tqdm = partial(_SilentBar, portion=counting.get(module))
        yield


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Let lm-eval compile each template of a task once, not once for each document."""
    environment = lm_eval.utils.env
    environment.from_string = lru_cache(maxsize=64)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


class _SilentBar(tqdm):  # type: ignore[misc]
    """Shows nothing; passes the completed share of requests to a portion of a stage."""

    def __init__(self, *arguments: Any, portion: Portion | None, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})
        self._portion = None if settings.get("disable") else portion
        self._requests = settings.get("total") or 0
        self._done = 0.0

    def update(self, n: float = 1) -> None:
        self._done += n
        if self._portion is not None and self._requests:
            self._portion.reach(self._done / self._requests)
