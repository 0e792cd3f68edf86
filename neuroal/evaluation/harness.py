"""Any task of lm-eval by its own name, with its prompts, examples and metrics."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from neuroal.config.schema import TaskConfig
from neuroal.data.hub import unreachable
from neuroal.data.resolve import SUFFIXES
from neuroal.errors import UserError, first_line, nearest
from neuroal.evaluation.harness_names import definition_of, definitions_folder
from neuroal.evaluation.task_table import TASKS
from neuroal.evaluation.zero_shot import (
    FEWSHOT_SEED,
    batch_for,
    quiet,
    scorer_of,
    templates_compiled_once,
)
from neuroal.execution.oom import AdaptiveBatch
from neuroal.tracking.progress import Portion

PREFERRED = ("acc", "exact_match")
"""Metrics that are a task's main figure wherever it has them; otherwise its first one is."""
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass(frozen=True)
class Harness:
    """A task or group of lm-eval with the settings of its evaluation.

    Attributes:
        name: its name in lm-eval.
        config: settings of the evaluation.
        root: folder of local data sets; None: data is read as lm-eval does, from the cache or hub.
    """

    name: str
    config: TaskConfig
    root: str | None

    @contextmanager
    def loaded(self, portion: Portion | None = None) -> Iterator[dict[str, Any]]:
        """Yield the tasks with their data, in the form of ``TaskManager.load``.

        Inside, `portion` receives the share of the requests that is complete.

        Raises:
            UserError: the task has no definition, or its data cannot be found.
        """
        scratch = tempfile.TemporaryDirectory(prefix="neuroal-")
        with scratch as folder, quiet(portion), templates_compiled_once(), _offline():
            yield self._load(Path(folder))

    def _load(self, folder: Path) -> dict[str, Any]:
        definition = definition_of(self.name)
        if definition is None:
            raise UserError(f"task.names: lm-eval {version('lm_eval')} has no task '{self.name}'")
        tasks = definitions_folder()
        inside = tasks / definition.path.relative_to(tasks).parts[0]
        sources = [inside] if definition.is_group else []
        stock = TaskManager(include_defaults=False, include_path=sources)
        local = self._local_definitions(stock, folder, None if sources else definition.path)
        try:
            if not definition.is_group:
                target = local.get(self.name, definition.path)
                loaded = TaskManager(include_defaults=False).load([str(target)])
            elif local:
                loaded = TaskManager(include_defaults=False, include_path=[inside, folder]).load(
                    [self.name]
                )
            else:
                loaded = stock.load([self.name])
        except Exception as error:  # of datasets and the hub's client, which raise many types
            raise UserError(
                f"task.names: the data of '{self.name}' cannot be read ({first_line(error)}); "
                "fetch it once with network access, or put it into "
                f"data.root/{self.name}/SPLIT.jsonl.gz{nearest(self.name, TASKS)}"
            ) from error
        for task in loaded["tasks"].values():
            if self.config.fewshot is not None:
                task.set_config(key="num_fewshot", value=self.config.fewshot)
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        return dict(loaded)

    def _local_definitions(
        self, stock: TaskManager, folder: Path, single: Path | None
    ) -> dict[str, Path]:
        """Write the definitions of the tasks that have data in `root`; return task → file.

        `single` is the definition of a task, None for a group, whose tasks are those of `stock`.
        """
        if self.root is None:
            return {}
        paths = {
            name: entry.yaml_path
            for name, entry in stock.task_index.items()
            if entry.yaml_path is not None and name in stock.all_subtasks
        }
        paths = paths if single is None else {self.name: single}
        local = {}
        for name, path in paths.items():
            files = _local_files(Path(self.root), name, load_yaml(path, resolve_func=False))
            if files:
                local[name] = folder / f"{name}.yaml"
                local[name].write_text(yaml.safe_dump(_on_files(path, files, folder)))
        return local


def _local_files(root: Path, name: str, definition: Mapping[str, Any]) -> dict[str, Path]:
    """Return split → file of a task in a folder of local data sets; empty if it is not there."""
    source, part = definition.get("dataset_path"), definition.get("dataset_name")
    repository = str(source or name).rpartition("/")[2]
    for folder in (root / name, root / f"{repository}-{part}", root / repository):
        files = {
            path.name.removesuffix(suffix): path
            for suffix in reversed(SUFFIXES)
            for path in sorted(folder.glob(f"*{suffix}"))
        }
        if files:
            return _of_one_format(files)
    return {}


def _of_one_format(files: dict[str, Path]) -> dict[str, Path]:
    """Return the files that are Parquet, or those that are not, whichever are more."""
    parquet = {split: path for split, path in files.items() if path.suffix == ".parquet"}
    others = {split: path for split, path in files.items() if path.suffix != ".parquet"}
    return parquet if len(parquet) > len(others) else others


def _on_files(path: Path, files: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Return the definition at `path` with `files` as its data."""
    stock = load_yaml(path, resolve_func=False)
    splits = {key: stock.get(key) if stock.get(key) in files else None for key in SPLITS}
    if not (splits["test_split"] or splits["validation_split"]):
        needed = stock.get("test_split") or stock.get("validation_split")
        raise UserError(
            f"data.root: {next(iter(files.values())).parent} has no {needed}.jsonl.gz, the split "
            f"of '{stock['task']}'"
        )
    kind = "parquet" if next(iter(files.values())).suffix == ".parquet" else "json"
    return {
        "include": str(path),
        "dataset_path": kind,
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(file.absolute()) for split, file in files.items()},
            "cache_dir": str(folder / "cache"),
        },
        **splits,
    }


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's clients from retrying for minutes where it cannot be reached."""
    if not unreachable():
        yield
        return
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


@dataclass(frozen=True)
class HarnessData:
    """What is known of a task before it is evaluated.

    Attributes:
        metric: its main metric.
        higher_is_better: whether larger values of the metric are better.
        source: data sets, as named by lm-eval.
        fingerprint: SHA-256 of the documents that are evaluated.
        documents: number of the documents that are evaluated.
    """

    metric: str
    higher_is_better: bool
    source: str
    fingerprint: str
    documents: int

    @classmethod
    def of(cls, harness: Harness) -> HarnessData:
        """Read the data of a task or group."""
        with harness.loaded() as loaded:
            better: dict[str, bool] = {}
            for task in loaded["tasks"].values():
                better |= {
                    k: bool(v) for k, v in task.higher_is_better().items() if k not in better
                }
            metric = next((name for name in PREFERRED if name in better), next(iter(better)))
            digest, sources, documents = hashlib.sha256(), [], 0
            for name, task in sorted(loaded["tasks"].items()):
                for document in task.eval_docs:
                    digest.update(json.dumps(document, sort_keys=True, default=str).encode())
                sources.append(f"{name}: {task.config.dataset_path}")
                count = len(task.eval_docs)
                documents += min(count, harness.config.limit or count)
            source = "; ".join(sources)
            return cls(metric, better[metric], source, digest.hexdigest(), documents)


def evaluate_harness(
    model: Any,
    tokenizer: Any,
    harness: Harness,
    metric: str,
    batch: int | None,
    portion: Portion | None = None,
) -> dict[str, Any]:
    """Evaluate `model` on a task or group of lm-eval.

    `portion` receives the share of the requests that is complete.

    Returns:
        ``value`` and ``stderr`` of the main metric, its name as ``metric``, every metric and
        standard error as lm-eval names them, ``documents``, ``version``, and ``samples`` (task →
        rows of lm-eval) if they are to be logged.
    """
    config = harness.config

    def run(size: int) -> Mapping[str, Any]:
        with harness.loaded(portion) as loaded:
            results: Mapping[str, Any] = evaluate(
                scorer_of(model, tokenizer, size),
                loaded,
                limit=config.limit,
                log_samples=config.log_samples,
                apply_chat_template=config.chat_template,
                fewshot_as_multiturn=config.chat_template,
            )
            return results

    results = AdaptiveBatch("evaluate", batch or batch_for(model)).run(run)
    return _figures(harness.name, metric, results)


def _figures(name: str, metric: str, results: Mapping[str, Any]) -> dict[str, Any]:
    measured = {
        key.removesuffix(",none"): float(value)
        for key, value in results["results"][name].items()
        if "," in key and isinstance(value, int | float)
    }
    main = next(key for key in measured if key.split(",")[0] == metric)
    head, comma, used_filter = main.partition(",")
    figures: dict[str, Any] = {
        "value": measured[main],
        "stderr": measured.get(f"{head}_stderr{comma}{used_filter}"),
        "metric": main,
        **measured,
        "documents": sum(int(count["effective"]) for count in results["n-samples"].values()),
        "version": {"lm_eval": version("lm_eval"), "task": results["versions"].get(name)},
    }
    if "samples" in results:
        figures["samples"] = results["samples"]
    return figures
