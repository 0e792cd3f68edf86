"""Validation of files and folders: inputs exist, and no output would replace another file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from neuroal.config.schema import RunConfig, value_at
from neuroal.errors import UserError, first_line
from neuroal.files.digest import is_file
from neuroal.files.outputs import check_is_plan, check_saved_by_neuroal

FOLDERS_OF_RECORDS = ("state", "measured", "samples", "explained")
"""Folders that a run creates under ``out``."""
FILE_OF_RECORDS = re.compile(r"\.?[0-9a-f]{16}(\..*)?")
"""Names that a run gives to files under ``out``: ``IDENTITY.json`` and others."""
METHODS = ("pruner", "topup", "refine")


def check_locations(config: RunConfig) -> None:
    """Raise `UserError` if an input is missing, or an output is not writable or would be lost."""
    text, root, save = config.calibration.path, config.data.root, config.save
    for key, value in _paths(config):
        _check_valid(key, value)
    if config.calibration.name == "text" and text is None:
        raise UserError("calibration.path: must be given, as in calibration.path=FILE")
    if text is not None and not Path(text).is_file():
        raise UserError(f"calibration.path={text}: no such file")
    if root is not None and not Path(root).is_dir():
        raise UserError(f"data.root={root}: no such folder")
    targets = {"save.model": save.model, "save.plan": save.plan}
    outputs = {key: target for key, target in targets.items() if target is not None}
    _check_kind("out", config.out, is_folder=True)
    for key, target in outputs.items():
        check_writable(key, target, is_folder=key != "save.plan")
    for key, target in outputs.items():
        _check_beside_records(key, target, config)
        for name, path in _inputs(config):
            _check_apart(key, target, name, path)
    _check_two_outputs(config)
    if save.model is not None:
        check_saved_by_neuroal(save.model)
    if save.plan is not None:
        check_is_plan(save.plan)


def _paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield every key that may name a file or folder, and its value."""
    for key in ("model.path", "calibration.path", "data.root", "save.model", "save.plan", "out"):
        value = value_at(config, key)
        if value is not None:
            yield key, value
    for group in METHODS:
        node = getattr(config, group)
        for name, value in node.items() if isinstance(node, Mapping) else ():
            if isinstance(value, str) and name != "_target_":
                yield f"{group}.{name}", value


def _check_valid(key: str, path: str) -> None:
    """Raise `UserError` for a path that no file system accepts: too long, or with a zero byte."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{key}={path}: is no valid path ({reason}); use another") from error


def check_writable(key: str, target: str, is_folder: bool = True) -> None:
    """Raise `UserError` unless the folder or file `target` can be created or replaced.

    Records are also read, so only the commands that write them check ``out``.
    """
    _check_kind(key, target, is_folder)
    path = Path(target).absolute()
    first = path if key == "out" else _real(path).parent  # what is saved is renamed into place
    existing = next(parent for parent in (first, *first.parents) if parent.exists())
    if not (os.access(existing, os.W_OK) and existing.is_dir()):
        raise UserError(f"{key}={target}: cannot be written; use a writable location")


def _check_kind(key: str, target: str, is_folder: bool) -> None:
    """Raise `UserError` if `target` is empty, or a file where a folder is needed or vice versa."""
    if not target.strip():
        kind = "folder" if is_folder else "file"
        raise UserError(f"{key}='': is empty; name a {kind}, as in {key}={kind.upper()}")
    path = Path(target).absolute()
    if path.exists() and not (path.is_dir() if is_folder else path.is_file()):
        kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "a device"
        raise UserError(f"{key}={target}: is {kind}; use another name")


def _inputs(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Yield key and path of every local file or folder that the run reads."""
    if config.model.source in ("hf", "gguf"):
        yield "model.path", Path(config.model.path).expanduser()
    if config.calibration.path is not None:
        yield "calibration.path", Path(config.calibration.path)
    if config.data.root is not None:
        yield "data.root", Path(config.data.root)
    for group in METHODS:
        node = getattr(config, group)
        for name, value in node.items() if isinstance(node, Mapping) else ():
            if isinstance(value, str) and name != "_target_" and is_file(value):
                yield f"{group}.{name}", Path(value)


def _check_apart(key: str, target: str, name: str, path: Path) -> None:
    """Raise `UserError` if writing `target`, the value of `key`, would change the input `path`."""
    output, source = _real(target), _real(path)
    inside_model = name == "model.path" and source.is_dir() and _contains(source, output)
    if output == source or inside_model or (source.exists() and _contains(output, source)):
        raise UserError(
            f"{key}={target}: overlaps {name}={path}, which the run reads; use another name"
        )


def _check_beside_records(key: str, target: str, config: RunConfig) -> None:
    """Raise `UserError` if `target` contains ``out``, or replaces a file or folder of records."""
    output, out = _real(target), _real(config.out)
    if _contains(output, out):
        raise UserError(
            f"{key}={target}: overlaps out={config.out}, the folder of records; use another name, "
            f"such as {Path(config.out) / 'saved'}"
        )
    if not _contains(out, output):
        return
    first = output.relative_to(out).parts[0]
    tracked = ("wandb",) if config.logger.name == "wandb" else ()
    if first in (*FOLDERS_OF_RECORDS, *tracked) or FILE_OF_RECORDS.fullmatch(first):
        raise UserError(
            f"{key}={target}: overlaps out={config.out}, whose records use the name {first}; "
            "use another name"
        )


def _check_two_outputs(config: RunConfig) -> None:
    """Raise `UserError` if one output contains another, or if ``out`` is the model's folder."""
    model, plan, out = config.save.model, config.save.plan, _real(config.out)
    if model is not None and plan is not None:
        paths = _real(model), _real(plan)
        if _contains(*paths) or _contains(*reversed(paths)):
            raise UserError(
                f"save.plan={plan}: overlaps save.model={model}, which holds a plan.json; "
                "use another name"
            )
    for name, path in _inputs(config):
        if name == "model.path" and _real(path) == out:
            raise UserError(f"out={config.out}: overlaps {name}={path}; use another folder")


def _contains(folder: Path, path: Path) -> bool:
    """Return whether resolved `path` is `folder` or lies in it."""
    return folder == path or folder in path.parents


def _real(path: str | Path) -> Path:
    """Return `path` as an absolute path without symbolic links."""
    return Path(os.path.realpath(path))
