"""Validation of a configuration before any model is loaded."""

from __future__ import annotations

import dataclasses
import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import schema
from neuroal.config.locations import check_locations
from neuroal.config.schema import RunConfig, SparsityConfig, TaskConfig, value_at
from neuroal.config.search_windows import search_windows
from neuroal.data.sets import CALIBRATION_SETS
from neuroal.errors import UserError, check_choice, first_line, nearest
from neuroal.evaluation.task_table import TASKS


def resolve(composed: DictConfig) -> RunConfig:
    """Convert a composed configuration to `RunConfig` and validate it."""
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(composed) if "hydra" not in key)
        if missing:
            raise UserError(f"{missing[0]}: must be given, as in {missing[0]}=VALUE")
        plain = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(RunConfig)])
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, RunConfig)
    return checked(config)


def explain(error: OmegaConfBaseException) -> str:
    """Return the message of an OmegaConf error in one line, with the nearest valid key."""
    key, parent = error.full_key or "", error.parent_node
    if isinstance(error, AttributeError | KeyError) and isinstance(parent, DictConfig):
        names = [str(name) for name in parent if name != "_target_"]
        listed = ", ".join(names) or "none"
        return f"{key}: no such key; there are: {listed}{nearest(str(error.key), names)}"
    first = str(error.msg or error).splitlines()[0]
    return f"{key}: {first}" if key else first


def message_of(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error in one line, with the nearest valid key."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    return explain(cause) if cause is not None else first_line(error)


def checked(config: RunConfig) -> RunConfig:
    """Validate all values of `config`; return a copy without values that follow from others.

    These are the ratio of an N:M pattern and the number of search windows of the top-up.
    """
    windows = dataclasses.replace(config.calibration, search_windows=search_windows(config))
    config = dataclasses.replace(config, sparsity=_with_ratio(config.sparsity), calibration=windows)
    for key, leaf in schema.leaves():
        if choices := leaf.metadata["choices"]:
            check_choice(key, value_at(config, key), choices)
    check_choice("calibration.name", config.calibration.name, CALIBRATION_SETS)
    check_task(config.task)
    if not 0 < config.sparsity.ratio < 1:
        raise UserError(f"sparsity.ratio={config.sparsity.ratio}: must be above 0 and below 1")
    _check_least("calibration.windows", config.calibration.windows, 1)
    _check_least("calibration.search_windows", config.calibration.search_windows, 1)
    _check_least("calibration.seqlen", config.calibration.seqlen, 2)
    _check_least("batch", config.batch, 1)
    _check_least("devices", config.devices, 1)
    if config.devices > 1 and config.offload != "none":
        raise UserError(
            f"devices={config.devices}: every device holds the whole model, so "
            f"offload={config.offload} saves no memory; use devices=1 or offload=none"
        )
    if config.logger.timeout <= 0:
        raise UserError(f"logger.timeout={config.logger.timeout}: must be above 0 seconds")
    _check_device(config.device)
    check_locations(config)
    return config


def _check_least(key: str, number: int | None, least: int) -> None:
    if number is not None and number < least:
        raise UserError(f"{key}={number}: must be at least {least}")


def check_task(task: TaskConfig) -> None:
    """Raise `UserError` for an unknown task or an invalid size."""
    for name in task.names:
        if name not in TASKS:
            close = nearest(name, TASKS)
            raise UserError(f"task.names: no task '{name}'; known: {', '.join(TASKS)}{close}")
    _check_least("task.seqlen", task.seqlen, 2)
    _check_least("task.limit", task.limit, 1)
    _check_least("task.batch", task.batch, 1)


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        close = nearest(device, ("auto", "cpu", "cuda"))
        raise UserError(f"device={device}: must be auto, cpu, cuda or cuda:N{close}")


def _with_ratio(sparsity: SparsityConfig) -> SparsityConfig:
    """Return `sparsity` with the ratio of its N:M pattern, if any."""
    keep, of = sparsity.keep, sparsity.of
    if of is not None and of < 2:
        raise UserError(f"sparsity.of={of}: must be at least 2, the smallest group of a pattern")
    if keep is None:
        return sparsity
    if of is None:
        raise UserError(f"sparsity.keep={keep}: needs the group size; set sparsity.of=M as well")
    if not 0 < keep < of:
        raise UserError(f"sparsity.keep={keep}: must be above 0 and below sparsity.of={of}")
    return dataclasses.replace(sparsity, ratio=1 - keep / of)
