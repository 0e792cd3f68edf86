"""The content of a model's files, without loading the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from neuroal.config.schema import ModelConfig
from neuroal.data.hub import unreachable
from neuroal.errors import UserError
from neuroal.files.digest import digests_of_files
from neuroal.models.location import locate_model

SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".tiktoken", ".txt", ".jinja", ".py")
"""Suffixes of the files of a folder that determine a model or its tokenizer."""
OURS = ("plan.json", "neuroal.json")
"""Files that `save_model` adds, which loading ignores."""


def model_content(config: ModelConfig) -> str | None:
    """Return a digest of the files of a model, or the hub repository and its resolved commit.

    The digest does not depend on the location of the files: a folder that is moved, copied or named
    by a relative path is the same model. None: the model cannot be found from here.
    """
    try:
        location = locate_model(config)
        if location.on_hub:
            commit = _commit(location.folder, config.revision)
            return f"{location.folder}@{commit}" if commit else None
        folder = Path(location.folder)
        return _digest([folder / location.gguf] if location.gguf else _files(folder))
    except (UserError, OSError):
        return None  # loading the model reports the error


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name not in OURS
    )


def _digest(paths: Iterable[Path]) -> str:
    """Return a digest of the names and contents of files; the name of a single file is ignored."""
    paths = list(paths)
    digests = digests_of_files(paths)
    if len(paths) == 1:
        return digests[0]
    lines = (f"{path.name} {digest}\n" for path, digest in zip(paths, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache(maxsize=64)
def _commit(name: str, revision: str | None) -> str | None:
    """Return the commit of a hub repository, from the hub if it answers, else from the cache."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if not unreachable():
        try:
            sha = HfApi().model_info(name, revision=revision, timeout=10).sha
            return str(sha) if sha else None
        except (HfHubHTTPError, OSError):
            pass  # for example a gated repository without a token: use the cache
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    if reference.is_file():
        return reference.read_text().strip()
    snapshots = folder / "snapshots" / str(revision)
    return revision if revision and snapshots.is_dir() else None
