"""Read the size of a model from its files, without loading it and without torch."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.models.location import ZOO, locate_model
from neuroal.placement.gguf_header import read_header

NAMED = {"microsoft/phi-2": 2.8e9}
"""Hub model → number of parameters, where the name does not contain it."""
SHAPE = 12 / 128
"""Number of parameters divided by the third power of the width, as in LLaMA."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ModelShape:
    """Size of a model.

    Attributes:
        parameters: number of parameters.
        hidden: width of its hidden states.
        widest: largest number of inputs or outputs of a linear in a block.
        blocks: number of decoder blocks.
        vocabulary: number of tokens.
        context: maximum number of tokens of a window.
    """

    parameters: float
    hidden: int
    widest: int
    blocks: int
    vocabulary: int
    context: int

    @property
    def in_blocks(self) -> float:
        """Number of parameters of all blocks.

        The rest is the embedding, and an LM head that may share its weights.
        """
        dense = self.blocks * self.hidden * (4.0 * self.hidden + 3 * self.widest)
        without_embeddings = self.parameters - 2.0 * self.vocabulary * self.hidden
        return min(self.parameters, max(dense, without_embeddings))


def shape_of(model: ModelConfig) -> ModelShape | None:
    """Return the shape of a model by its files, or by a name such as ``llama-7b``.

    Reads ``config.json`` or the header of a GGUF file. None: the shape is not known here.
    """
    if model.source in ("gguf", "package"):
        try:
            return _of_gguf(Path(str(locate_model(model))))
        except UserError:  # not on this machine
            return None
    folder = _folder(model)
    return (_of_folder(folder) if folder else None) or _by_name(model.path)


def _of_folder(folder: Path) -> ModelShape | None:
    """Return the shape of the model in `folder`; None if its configuration has another layout."""
    stored = _settings(folder / "config.json")
    settings = {**stored, **(stored.get("text_config") or {})}
    if "hidden_size" not in settings and "n_embd" not in settings:
        return None
    hidden = int(settings.get("hidden_size") or settings["n_embd"])
    blocks = int(settings.get("num_hidden_layers") or settings.get("n_layer") or 1)
    widest = int(settings.get("intermediate_size") or settings.get("ffn_dim") or 4 * hidden)
    vocabulary = int(settings.get("vocab_size", 0))
    context = int(settings.get("max_position_embeddings") or 2048)
    parameters = blocks * hidden * (4.0 * hidden + 3 * widest) + vocabulary * hidden
    return ModelShape(
        _stored(folder, stored) or parameters, hidden, widest, blocks, vocabulary, context
    )


@lru_cache(maxsize=64)
def _of_gguf(path: Path) -> ModelShape | None:
    """Return the shape of a GGUF file by its header; None if it is damaged or incomplete."""
    try:
        header = read_header(path)
        kind = header.metadata["general.architecture"]
        hidden, widest, blocks, context = (
            int(header.metadata[f"{kind}.{key}"])
            for key in (
                "embedding_length",
                "feed_forward_length",
                "block_count",
                "context_length",
            )
        )
        vocabulary = header.numel["token_embd.weight"] // hidden
    except (OSError, struct.error, LookupError, ValueError, TypeError, ArithmeticError):
        return None
    return ModelShape(
        float(sum(header.numel.values())), hidden, widest, blocks, vocabulary, context
    )


def _folder(model: ModelConfig) -> Path | None:
    """Return the folder of the model's files, which may be in the cache of the hub."""
    if model.source == "zoo":
        return ZOO / model.path
    path = Path(model.path).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    except ValueError:  # no valid name of a model
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _settings(path: Path) -> dict[str, Any]:
    """Return the content of a ``config.json``; empty if it cannot be read."""
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _stored(folder: Path, settings: dict[str, Any]) -> float | None:
    """Return the number of parameters by the size of the checkpoint; None without weights."""
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    kind = str(settings.get("dtype") or settings.get("torch_dtype"))
    size: float = sum(file.stat().st_size for file in files)
    return size / BYTES.get(kind, 2) if files else None


def _by_name(name: str) -> ModelShape | None:
    """Return the shape of a LLaMA with as many parameters as `name` says."""
    match = re.search(r"(\d+(?:\.\d+)?)b\b", name.lower())
    parameters = NAMED.get(name) or (float(match[1]) * 1e9 if match else None)
    if parameters is None:
        return None
    hidden = round((parameters / SHAPE) ** (1 / 3))
    blocks = max(1, round(parameters / (12 * hidden**2)))
    return ModelShape(parameters, hidden, round(2.7 * hidden), blocks, 32_000, 2048)
