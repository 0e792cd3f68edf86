"""Contents of the files that determine a run, as far as they can be read from this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from neuroal.config.schema import ModelConfig, RunConfig
from neuroal.data.resolve import in_cache, in_folder
from neuroal.data.sets import BUILTIN, SETS
from neuroal.errors import UserError
from neuroal.files.atomic import read_text
from neuroal.files.digest import digests_of_files
from neuroal.files.sealed import DAMAGE, unsealed, write_sealed
from neuroal.models.content import model_content
from neuroal.records.summary import STATE_FOLDER

FOLDER = "inputs"
"""Folder under ``OUT/state`` with the contents that earlier runs have read."""
Key = tuple[str, ...]
"""Kind, name and place of an input."""


class Contents:
    """Reads the content of every model and calibration text once, for many runs.

    A machine without the files, such as a login node, uses the content that the last run in the
    same ``out`` has read.
    """

    def __init__(self) -> None:
        self._read: dict[Key, str | None] = {}

    def model(self, config: RunConfig) -> str | None:
        """Return the content of the model; None if neither it nor an earlier run is available."""
        return self._content(self._model_key(config), config)

    def calibration(self, config: RunConfig) -> str | None:
        """Return the content of the calibration text, unless it is the user's own file.

        None: neither the text nor an earlier run is available.
        """
        key = self._calibration_key(config)
        return self._content(key, config) if key else None

    def tasks(self, config: RunConfig) -> dict[str, str | None]:
        """Return the content of the data of each task; None: not available on this machine."""
        return {
            name: self._data(name, "evaluation", config.data.root) for name in config.task.names
        }

    def absent(self, config: RunConfig) -> tuple[str, ...]:
        """Return the inputs of a run that cannot be read here, as printed."""
        return tuple(f"{key[0]} {key[1]}" for key in self._keys(config) if self._read[key] is None)

    def bind(self, config: RunConfig) -> None:
        """Write the contents of a run's inputs for machines that cannot read them."""
        for key in self._keys(config):
            path, content = _bound(config, key), self._read[key]
            if content is not None and _load(path) != content:
                write_sealed(path, {"input": list(key), "content": content})

    def _keys(self, config: RunConfig) -> list[Key]:
        """Return the keys of the run's inputs, which are read if necessary."""
        return list(filter(None, (self._model_key(config), self._calibration_key(config))))

    def _model_key(self, config: RunConfig) -> Key:
        model = config.model
        key = ("model", _place(model), model.source, model.revision or "")
        if key not in self._read:
            self._read[key] = model_content(model)
        return key

    def _calibration_key(self, config: RunConfig) -> Key | None:
        name, root = config.calibration.name, config.data.root
        if name not in SETS and name != "builtin":
            return None
        self._data(name, "calibration", root)
        return ("calibration", name, root or "")

    def _data(self, name: str, purpose: str, root: str | None) -> str | None:
        key = (purpose, name, root or "")
        if key not in self._read:
            self._read[key] = _data_content(name, purpose, root)
        return self._read[key]

    def _content(self, key: Key, config: RunConfig) -> str | None:
        return self._read[key] or _load(_bound(config, key))


def _place(model: ModelConfig) -> str:
    """Return the path of a local model as an absolute path, and other names unchanged."""
    local = model.source in ("hf", "gguf") and Path(model.path).expanduser().exists()
    looks_local = Path(model.path).is_absolute() or model.path.startswith((".", "~"))
    if local or looks_local or model.source == "gguf":
        return str(Path(model.path).expanduser().absolute())
    return model.path


def _data_content(name: str, purpose: str, root: str | None) -> str | None:
    """Return the content of a data set for ``calibration`` or ``evaluation``."""
    if name not in SETS and name != "builtin":
        return None  # a task of lm-eval, whose data is part of its description
    try:
        if name == "builtin":
            return digests_of_files([BUILTIN / f"{purpose}.jsonl.gz"])[0]
        source, split = SETS[name], SETS[name].split(purpose)
        data = in_folder(source, split, root) or in_cache(source, split)
        return " ".join(digests_of_files(data.files)) if data else None
    except (UserError, OSError):
        return None  # the run reports the error when it reads the text


def _bound(config: RunConfig, key: Key) -> Path:
    """Return the path of the content of an input; a data set may have another folder elsewhere."""
    declared = key[:2] if key[0] == "calibration" else key
    digest = hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]
    return Path(config.out) / STATE_FOLDER / FOLDER / f"{digest}.input"


def _load(path: Path) -> str | None:
    try:
        return str(json.loads(unsealed(read_text(path)))["content"])
    except (OSError, *DAMAGE):
        return None
