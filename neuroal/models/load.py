"""Load models from the zoo, folders, the hub, GGUF files and packages, and save them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from neuroal.config.schema import ModelConfig
from neuroal.data.hub import unreachable
from neuroal.errors import UserError, check_choice
from neuroal.models.compressed import is_compressed, without_format
from neuroal.models.devices import pick_devices
from neuroal.models.finite import check_finite
from neuroal.models.gguf_reader import headers_parsed_once
from neuroal.models.gguf_tokenizer import check_gguf_tokenizer
from neuroal.models.intact import check_configuration, check_gguf, check_weights
from neuroal.models.location import Location, locate_model
from neuroal.models.offload import open_on_disk, place_on_devices, place_on_host
from neuroal.models.pretrained import is_quantized, read_whole, reading
from neuroal.models.tokens import check_tokenizer, check_tokens, embedding_rows
from neuroal.models.versions import warn_of_untested_versions

DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model of `transformers` with its tokenizer and its name in results.

    `stored_dtype` is the dtype that its checkpoint names; None: unknown, or quantised.
    """

    model: Any
    tokenizer: Any
    name: str
    stored_dtype: str | None = None

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
    config: ModelConfig,
    device: torch.device,
    offload: str = "none",
    scratch: Path | None = None,
    devices: int = 1,
) -> LoadedModel:
    """Load the model that `config` names, in evaluation mode and without gradients.

    ``dtype=auto`` selects the dtype of the checkpoint on a GPU and float32 on a CPU.

    Args:
        config: location and loading options of the model.
        device: device on which the model computes.
        offload: where idle blocks are kept: ``none`` (on `device`), ``blocks`` (in host memory),
            ``devices`` (in the memory of several GPUs) or ``disk``.
        scratch: path beside which the temporary folder for modified blocks is made under
            ``offload=disk``; None: in the system's folder.
        devices: number of devices for ``offload=devices``.

    Raises:
        UserError: if the model or its tokenizer cannot be found or loaded, if it is not a
            decoder-only model, or if its weights contain NaN or infinity.
    """
    warn_of_untested_versions()
    location = locate_model(config)
    if location.gguf and find_spec("gguf") is None:
        raise UserError(
            f"model.path={config.path}: a GGUF file needs the package gguf; "
            "pip install 'neuroal[gguf]'"
        )
    folder, where = location.folder, str(location)
    options = _loading_options(config, location)
    with headers_parsed_once() if location.gguf else nullcontext():
        with reading(where, "cannot be loaded"):
            if location.gguf:
                check_gguf(Path(where))
            elif not location.on_hub:
                check_configuration(Path(folder))
            model = _read_model(config, folder, options, device, offload, scratch)
        model = model.eval().requires_grad_(False)
        if offload == "none":
            model = model.to(device)
        if offload == "blocks":
            place_on_host(model, device)
        if offload == "devices":
            place_on_devices(model, pick_devices(device, devices))
        check_finite(model)
        with reading(where, "the tokenizer cannot be loaded"):
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            check_tokenizer(tokenizer, where)
            if location.gguf:
                check_gguf_tokenizer(tokenizer, Path(where))
    if offload == "none":
        _check_runs(model, where)
    stored = None if location.gguf else _stored_dtype(folder, options)
    return LoadedModel(model, tokenizer, config.name or config.path, stored)


def load_compressed(
    folder: str | Path, *, dtype: str = "auto", device: str = "cpu", trust_remote_code: bool = False
) -> Any:
    """Load a model that ``save.format=compressed`` wrote, in evaluation mode.

    Its weights, and so its logits, are those of the model that was saved. It is a dense model of
    `transformers`, which ``model.save_pretrained`` writes in the usual format.

    Args:
        folder: folder of the model.
        dtype: ``float32``, ``float16``, ``bfloat16``, or ``auto`` for that of the checkpoint.
        device: device of the model.
        trust_remote_code: run Python code from the checkpoint.

    Raises:
        UserError: `folder` holds no compressed model, or a damaged one.
    """
    check_choice("dtype", dtype, DTYPES)
    config = ModelConfig(source="hf", path=str(folder), trust_remote_code=trust_remote_code)
    location = locate_model(config)
    options = _loading_options(config, location)
    with reading(str(location), "cannot be loaded"):
        model_config = AutoConfig.from_pretrained(location.folder, **options)
        if not is_compressed(model_config):
            raise UserError(
                f"load_compressed: {folder} is not compressed; "
                "use AutoModelForCausalLM.from_pretrained of transformers"
            )
        files = str(snapshot(location.folder, None))
        chosen = dtype if dtype == "auto" else getattr(torch, dtype)
        model = read_whole(files, options, chosen, model_config)
    check_finite(model)
    return model.eval().requires_grad_(False).to(device)


def _stored_dtype(folder: str, options: dict[str, Any]) -> str | None:
    """Return the dtype that the ``config.json`` of a model names, if any."""
    dtype = getattr(AutoConfig.from_pretrained(folder, **options).get_text_config(), "dtype", None)
    return str(dtype).removeprefix("torch.") if dtype else None


def _check_runs(model: Any, where: str) -> None:
    """Run the model on two tokens; raise `UserError` if that fails, as with a wrong config.json."""
    tokens = torch.zeros((1, 2), dtype=torch.int64, device=model.device)
    with torch.no_grad(), reading(where, "cannot run on text; check its config.json"):
        model(tokens, use_cache=False)


def _loading_options(config: ModelConfig, location: Location) -> dict[str, Any]:
    """Return the keyword arguments of ``from_pretrained`` for model and tokenizer."""
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if location.on_hub and unreachable():
        options["local_files_only"] = True  # avoids minutes of retries
    if config.revision:
        options["revision"] = config.revision
    if location.gguf:
        options["gguf_file"] = location.gguf
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
        where = Path(folder, options.get("gguf_file", ""))
        raise UserError(
            f"model.path={where}: {model_config.model_type} is not a decoder-only model"
        )
    if is_compressed(model_config):
        folder = str(snapshot(folder, config.revision))
    if "gguf_file" not in options and Path(folder).is_dir():
        check_weights(Path(folder))
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
    if is_compressed(model_config):
        model_config = without_format(model_config)
    stored = None if dtype == "auto" else dtype
    files = snapshot(folder, config.revision)
    return open_on_disk(files, model_config, stored, device, scratch, config.trust_remote_code)


def _is_encoder(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    supported = own_code or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    causal = any("CausalLM" in name for name in config.architectures or [])
    return (not supported) or (config.model_type in ("bert", "roberta", "electra") and not causal)


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
