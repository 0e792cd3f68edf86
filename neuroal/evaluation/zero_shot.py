"""Zero-shot tasks by stock lm-eval: its task definitions, with the data taken from local files."""

from __future__ import annotations

import copy
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.tasks
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from neuroal.data.resolve import Found
from neuroal.evaluation.batching import batch_for_logits, halving

TASKS = Path(lm_eval.tasks.__file__).parent
STOCK = {
    "rte": "glue/rte/default.yaml",
    "winogrande": "winogrande/default.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
}
"""Task → its definition among those of lm-eval 0.4.13 (reading all of its thousands takes long)."""
FEWSHOT_SEED = 1234
"""lm-eval's own default; without examples in the prompt nothing is drawn."""
LONGEST = 1024
"""Tokens of the longest request, for the batch size: BoolQ's longest passages are near it."""


def zero_shot(
    model: Any,
    tokenizer: Any,
    name: str,
    found: Found,
    split: str,
    limit: int | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Accuracy of `model` on task `name`, no examples in the prompt.

    Args:
        model: causal language model of `transformers`.
        tokenizer: its tokenizer (left as it is).
        name: a task of `STOCK`.
        found: its documents.
        split: which split they are.
        limit: documents, from the first; None: all.
        batch: requests in one forward pass; None: by memory.

    Returns:
        ``acc``, ``acc_stderr``, for tasks that have it ``acc_norm`` and ``acc_norm_stderr``
        (log-likelihood divided by the answer's bytes), ``documents`` and ``version``: lm-eval's
        and the task definition's.
    """
    with tempfile.TemporaryDirectory(prefix="neuroal-") as folder, _calm():
        path = write_task(Path(folder), name, found, split)
        batch = batch or batch_for_logits(model, min(LONGEST, _context(model)))
        results = halving(batch, lambda size: _evaluate(model, tokenizer, path, limit, size))
    return _figures(name, results)


def write_task(folder: Path, name: str, found: Found, split: str) -> Path:
    """Write FOLDER/NAME.yaml: the stock definition of `name` on the files of `found`.

    It works with lm-eval's own command, too: ``lm_eval --tasks FOLDER/NAME.yaml``.
    """
    kind = "parquet" if found.files[0].suffix == ".parquet" else "json"
    definition = {
        "include": str(TASKS / STOCK[name]),
        "dataset_path": kind,
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: [str(path.absolute()) for path in found.files]},
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
    # lm-eval gives the tokenizer a padding token; the one that is saved shall stay as it was.
    scorer = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch)
    loaded = TaskManager(include_defaults=False).load([str(path)])
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    results: Mapping[str, Any] = evaluate(scorer, loaded, limit=limit, log_samples=False)
    return results


def _context(model: Any) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", LONGEST))


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
def _calm() -> Iterator[None]:
    """Of the libraries' chatter only errors; progress bars only where a person looks on."""
    with ExitStack() as stack:
        for name in ("lm_eval", "lm-eval", "datasets"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        if not sys.stderr.isatty():
            for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface):
                stack.enter_context(patch.object(module, "tqdm", _no_bar))
        yield


def _no_bar(*arguments: Any, **settings: Any) -> Any:
    return tqdm(*arguments, **{**settings, "disable": True})
