"""Validation of a configuration before any model is loaded."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroal.config import schema
from neuroal.config.locations import check_locations
from neuroal.config.schema import (
    LONGEST_NAME,
    LONGEST_TAG,
    MOST_SAMPLES,
    CalibrationConfig,
    LoggerConfig,
    RunConfig,
    SparsityConfig,
    TaskConfig,
    value_at,
)
from neuroal.config.search_windows import search_windows
from neuroal.data.sets import CALIBRATION_SETS
from neuroal.errors import UserError, check_choice, first_line, nearest, shortened
from neuroal.evaluation.harness_names import definition_of, harness_names
from neuroal.evaluation.task_table import TASKS
from neuroal.placement.choices import check_offload

MOST_WINDOWS = 2**20
"""Maximum number of calibration windows; more would not fit into memory."""
TOKEN_BYTES = 1024
"""Least bytes that a token takes: the hidden state of a small model."""
MOST_SEED = 2**63 - 1
"""Maximum absolute value of a seed."""


def resolve(composed: DictConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """Convert a composed configuration to `RunConfig` and validate it.

    `overrides` are those of the command line: a ratio that they set must be that of the pattern.
    """
    _check_names(composed)
    try:
        missing = sorted(key for key in OmegaConf.missing_keys(composed) if "hydra" not in key)
        if missing:
            raise UserError(f"{missing[0]}: must be given, as in {missing[0]}=VALUE")
        plain = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(RunConfig)])
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, RunConfig)
    return checked(config, explicit_ratio=_sets_ratio(overrides))


def _check_names(composed: DictConfig) -> None:
    """Raise `UserError` for a key that the schema lacks, as ``+KEY=VALUE`` adds one."""
    types = get_type_hints(RunConfig)
    for name in map(str, composed):
        if name not in types and name != "hydra":
            raise UserError(f"{name}: no such group or key{nearest(name, types)}")
        node = None if OmegaConf.is_missing(composed, name) else composed[name]
        if isinstance(node, DictConfig) and dataclasses.is_dataclass(types.get(name)):
            keys = [field.name for field in dataclasses.fields(types[name])]
            for key in map(str, node):
                if key not in keys:
                    listed, close = ", ".join(keys), nearest(key, keys)
                    raise UserError(f"{name}.{key}: no such key; there are: {listed}{close}")


def _sets_ratio(overrides: Sequence[str]) -> bool:
    """Return whether `overrides` set the ratio: by its key, or by an option without a pattern."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        option = schema.conf_dir() / "sparsity" / f"{value}.yaml"
        if key == "sparsity.ratio":
            return True
        if key == "sparsity" and option.is_file() and "keep" not in OmegaConf.load(option):
            return True
    return False


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


def checked(config: RunConfig, explicit_ratio: bool = True) -> RunConfig:
    """Validate all values of `config`; return a copy without values that follow from others.

    These are the ratio of an N:M pattern and the number of search windows of the top-up. If
    `explicit_ratio`, the ratio must be that of the pattern; else the pattern sets it.
    """
    check_finite(dataclasses.asdict(config))
    sparsity = _with_ratio(config.sparsity, explicit_ratio)
    windows = dataclasses.replace(config.calibration, search_windows=search_windows(config))
    config = dataclasses.replace(config, sparsity=sparsity, calibration=windows)
    for key, leaf in schema.leaves():
        if choices := leaf.metadata["choices"]:
            check_choice(key, value_at(config, key), choices)
    check_choice("calibration.name", config.calibration.name, CALIBRATION_SETS)
    check_task(config.task)
    check_ratio("sparsity.ratio", config.sparsity.ratio)
    for key in ("calibration.windows", "calibration.search_windows"):
        check_windows(key, value_at(config, key))
    for key in ("seed", "calibration.seed"):
        check_seed(key, value_at(config, key))
    _check_least("calibration.seqlen", config.calibration.seqlen, 2)
    check_batch("batch", config.batch)
    _check_room(config.calibration)
    _check_least("devices", config.devices, 1)
    check_offload(config.offload, config.devices)
    _check_logger(config.logger)
    _check_device(config.device)
    check_locations(config)
    return config


def check_finite(value: Any, key: str = "") -> None:
    """Raise `UserError` for a number in `value`, the value of `key`, that is infinite or NaN."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_finite(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            check_finite(item, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")


def check_ratio(key: str, ratio: float) -> None:
    """Raise `UserError` unless `ratio`, the value of `key`, is a share; it may be a percentage."""
    if not 0 < ratio < 1:
        meant = f"; did you mean {ratio / 100:g}?" if 1 < ratio < 100 else ""
        raise UserError(f"{key}={ratio:g}: must be above 0 and below 1{meant}")


def check_windows(key: str, windows: int | None) -> None:
    """Raise `UserError` unless `windows`, the value of `key`, is a possible number of windows."""
    _check_range(key, windows, 1, MOST_WINDOWS)


def check_seed(key: str, seed: int | None) -> None:
    """Raise `UserError` unless `seed`, the value of `key`, is a valid seed."""
    _check_range(key, seed, -MOST_SEED, MOST_SEED)


def check_batch(key: str, batch: int | None) -> None:
    """Raise `UserError` unless `batch`, the value of `key`, is a valid batch size."""
    _check_least(key, batch, 1)


def _check_room(calibration: CalibrationConfig) -> None:
    """Raise `UserError` if the windows of any model cannot fit into this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    seqlen = calibration.seqlen or 64
    for key in ("windows", "search_windows"):
        windows = getattr(calibration, key) or 0
        if windows * seqlen * TOKEN_BYTES > memory:
            raise UserError(
                f"calibration.{key}={windows}: its {windows * seqlen} tokens do not fit into "
                f"{memory / 2**30:.0f} GiB of memory; use fewer windows"
            )


def _check_least(key: str, number: int | None, least: int) -> None:
    if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
        raise UserError(f"{key}={shortened(number)}: must be an integer")
    if number is not None and number < least:
        raise UserError(f"{key}={number}: must be at least {least}")


def _check_range(key: str, number: int | None, least: int, most: int) -> None:
    _check_least(key, number, least)
    if number is not None and number > most:
        raise UserError(f"{key}={number}: must be at most {most}")


def check_task(task: TaskConfig) -> None:
    """Raise `UserError` for an unknown task or an invalid size."""
    for name in task.names:
        if name not in TASKS and definition_of(name) is None:
            close = nearest(name, TASKS) or nearest(name, harness_names())
            raise UserError(
                f"task.names: no task '{name}'; there are {', '.join(TASKS)}, and the tasks and "
                f"groups of lm-eval{close}"
            )
    _check_least("task.seqlen", task.seqlen, 2)
    _check_least("task.limit", task.limit, 1)
    _check_least("task.batch", task.batch, 1)
    _check_least("task.samples", task.samples, 0)
    if task.samples > MOST_SAMPLES:
        raise UserError(f"task.samples={task.samples}: must be at most {MOST_SAMPLES}")
    _check_least("task.fewshot", task.fewshot, 0)


def _check_logger(logger: LoggerConfig) -> None:
    """Raise `UserError` for a value that W&B refuses, which would end tracking."""
    if logger.timeout <= 0:
        raise UserError(f"logger.timeout={logger.timeout}: must be above 0 seconds")
    for tag in logger.tags:
        if not isinstance(tag, str) or not tag.strip() or len(tag) > LONGEST_TAG:
            raise UserError(f"logger.tags: the tag '{tag}' must have 1 to {LONGEST_TAG} characters")
    for key, name in (("project", logger.project), ("group", logger.group)):
        if name is not None and not 0 < len(name) <= LONGEST_NAME:
            raise UserError(f"logger.{key}={name}: must have 1 to {LONGEST_NAME} characters")
    if wrong := set(logger.project) & set("/\\#?%:"):
        raise UserError(f"logger.project={logger.project}: must not contain {min(wrong)}")


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        close = nearest(device, ("auto", "cpu", "cuda"))
        raise UserError(f"device={device}: must be auto, cpu, cuda or cuda:N{close}")


def _with_ratio(sparsity: SparsityConfig, explicit: bool) -> SparsityConfig:
    """Return `sparsity` with the ratio of its N:M pattern, if any; `explicit`: must be equal."""
    keep, of = sparsity.keep, sparsity.of
    if of is not None and of < 2:
        raise UserError(f"sparsity.of={of}: must be at least 2, the smallest group of a pattern")
    if keep is None:
        return sparsity
    if of is None:
        raise UserError(f"sparsity.keep={keep}: needs the group size; set sparsity.of=M as well")
    if not 0 < keep < of:
        raise UserError(f"sparsity.keep={keep}: must be above 0 and below sparsity.of={of}")
    ratio = 1 - keep / of
    if explicit and not math.isclose(sparsity.ratio, ratio, abs_tol=1e-6):
        raise UserError(
            f"sparsity.ratio={sparsity.ratio}: contradicts the pattern {keep}:{of}, which prunes "
            f"{ratio:.6g}; leave out the ratio, or set sparsity.keep=null sparsity.of=null"
        )
    return dataclasses.replace(sparsity, ratio=ratio)
