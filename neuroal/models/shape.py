"""Read the size of a model from its files, without loading it and without torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroal.config.schema import ModelConfig
from neuroal.models.location import ZOO

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
    def embeddings(self) -> float:
        """Number of parameters of the embedding and the LM head."""
        return 2.0 * self.vocabulary * self.hidden


def shape_of(model: ModelConfig) -> ModelShape | None:
    """Return the shape of a model by its ``config.json``, or by a name such as ``llama-7b``.

    None: neither is available on this machine.
    """
    folder = _folder(model)
    settings = _settings(folder / "config.json") if folder else {}
    stored = _stored(folder, settings) if folder else None
    settings = {**settings, **(settings.get("text_config") or {})}
    if "hidden_size" not in settings and "n_embd" not in settings:
        return _by_name(model.path)
    hidden = int(settings.get("hidden_size") or settings["n_embd"])
    blocks = int(settings.get("num_hidden_layers") or settings.get("n_layer") or 1)
    widest = int(settings.get("intermediate_size") or settings.get("ffn_dim") or 4 * hidden)
    vocabulary = int(settings.get("vocab_size", 0))
    context = int(settings.get("max_position_embeddings") or 2048)
    parameters = blocks * hidden * (4.0 * hidden + 3 * widest) + vocabulary * hidden
    return ModelShape(stored or parameters, hidden, widest, blocks, vocabulary, context)


def _folder(model: ModelConfig) -> Path | None:
    """Return the folder of the model's files, which may be in the cache of the hub."""
    if model.source == "zoo":
        return ZOO / model.path
    path = Path(model.path).expanduser()
    if path.is_dir():
        return path
    if model.source != "hf":
        return None
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
