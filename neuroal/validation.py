"""What can be wrong with a configuration and is known before any model is loaded."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import RunConfig, SparsityConfig, TaskConfig
from neuroal.errors import UserError, check_choice, nearest

PERPLEXITY_SETS = ("builtin", "wikitext2", "ptb", "c4", "c4_sample")
ZERO_SHOT_SETS = (
    "rte",
    "winogrande",
    "boolq",
    "hellaswag",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
)
CALIBRATION_SETS = (*PERPLEXITY_SETS, "text")
CHOICES = {  # key → what it may be
    "rules": ("exact", "reference"),
    "model.dtype": ("auto", "float32", "float16", "bfloat16"),
    "model.source": ("zoo", "hf", "gguf", "package"),
    "calibration.name": CALIBRATION_SETS,
    "offload": ("none", "blocks", "disk"),
    "logger.name": ("none", "wandb"),
    "logger.mode": ("offline", "online"),
}


def resolve(composed: DictConfig) -> RunConfig:
    """Typed configuration of a run, checked as far as that goes without a model.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(composed) if "hydra" not in key)
        if missing:
            raise UserError(f"{missing[0]}: must be given, as in {missing[0]}=VALUE")
        plain = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(RunConfig)])
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, RunConfig)
    validate(config)
    return config


def explain(error: OmegaConfBaseException) -> str:
    """The gist of an OmegaConf error in one line, with the nearest valid name."""
    key, parent = error.full_key or "", error.parent_node
    if isinstance(error, AttributeError | KeyError) and isinstance(parent, DictConfig):
        names = [str(name) for name in parent if name != "_target_"]
        listed = ", ".join(names) or "none"
        return f"{key}: no such key; there are: {listed}{nearest(str(error.key), names)}"
    first = str(error.msg or error).splitlines()[0]
    return f"{key}: {first}" if key else first


def validate(config: RunConfig) -> None:
    """Check all values of `config`, and set the sparsity that a pattern comes to.

    Raises:
        UserError: names the key, its value and what would be right.
    """
    _check_pattern(config.sparsity)
    for key, choices in CHOICES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        check_choice(key, value, choices)
    check_task(config.task)
    if not 0 < config.sparsity.ratio < 1:
        raise UserError(f"sparsity.ratio={config.sparsity.ratio}: must be above 0 and below 1")
    at_least = {
        "calibration.windows": (config.calibration.windows, 1),
        "calibration.search_windows": (config.calibration.search_windows, 1),
        "calibration.seqlen": (config.calibration.seqlen, 2),
        "batch": (config.batch, 1),
        "devices": (config.devices, 1),
    }
    for key, (number, least) in at_least.items():
        if number is not None and number < least:
            raise UserError(f"{key}={number}: must be at least {least}")
    if config.devices > 1 and config.offload != "none":
        raise UserError(
            f"devices={config.devices}: every device holds the whole model, which "
            f"offload={config.offload} is there to avoid; use devices=1 or offload=none"
        )
    if config.logger.timeout <= 0:
        raise UserError(f"logger.timeout={config.logger.timeout}: must be above 0 seconds")
    _check_device(config.device)
    _check_paths(config)


def check_task(task: TaskConfig) -> None:
    """Raise `UserError` for a task that there is none of, and for sizes that cannot be."""
    known = (*PERPLEXITY_SETS, *ZERO_SHOT_SETS)
    for name in task.names:
        if name not in known:
            close = nearest(name, known)
            raise UserError(f"task.names: no task '{name}'; known: {', '.join(known)}{close}")
    for key, number, least in (
        ("task.seqlen", task.seqlen, 2),
        ("task.limit", task.limit, 1),
        ("task.batch", task.batch, 1),
    ):
        if number is not None and number < least:
            raise UserError(f"{key}={number}: must be at least {least}")


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        close = nearest(device, ("auto", "cpu", "cuda"))
        raise UserError(f"device={device}: must be auto, cpu, cuda or cuda:N{close}")


def _check_paths(config: RunConfig) -> None:
    """What is read must be there, what is written must find a place, and nothing gets lost."""
    text, root, save = config.calibration.path, config.data.root, config.save
    if config.calibration.name == "text" and text is None:
        raise UserError("calibration.path: must be given, as in calibration.path=FILE")
    if text is not None and not Path(text).is_file():
        raise UserError(f"calibration.path={text}: no such file")
    if root is not None and not Path(root).is_dir():
        raise UserError(f"data.root={root}: no such folder")
    for key, target in (("out", config.out), ("save.model", save.model), ("save.plan", save.plan)):
        if target is not None:
            _check_writable(key, target, wants_folder=key != "save.plan")
    found = Path(save.model) if save.model is not None else None
    if found and found.is_dir() and any(found.iterdir()) and not (found / "plan.json").is_file():
        raise UserError(
            f"save.model={found}: is there and holds no pruned model; "
            "give a new folder, so that nothing gets lost"
        )


def _check_writable(key: str, target: str, wants_folder: bool) -> None:
    path = Path(target).absolute()
    if path.exists() and path.is_dir() != wants_folder:
        kind = "a folder" if path.is_dir() else "a file"
        raise UserError(f"{key}={target}: is {kind}; give another name")
    place = next(parent for parent in (path, *path.parents) if parent.exists())
    if not (os.access(place, os.W_OK) and (place.is_dir() or place == path)):
        raise UserError(f"{key}={target}: cannot be written; give a place that can")


def _check_pattern(sparsity: SparsityConfig) -> None:
    """Check an N:M pattern and let `ratio` say what it comes to."""
    keep, of = sparsity.keep, sparsity.of
    if of is not None and of < 2:
        raise UserError(f"sparsity.of={of}: a pattern has groups of at least 2 columns")
    if keep is None:
        return
    if of is None:
        raise UserError(f"sparsity.keep={keep}: of how many columns? set sparsity.of=M as well")
    if not 0 < keep < of:
        raise UserError(f"sparsity.keep={keep}: must be above 0 and below sparsity.of={of}")
    sparsity.ratio = 1 - keep / of
