"""Load and save models: shipped ones, folders, the hub, GGUF files, wheels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from neuroal.config import ModelConfig
from neuroal.errors import UserError, nearest
from neuroal.hub import unreachable
from neuroal.models.place import open_on_disk, place_on_host, save_offloaded
from neuroal.placement.base import placement_of

ZOO = Path(__file__).parents[1] / "zoo"
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, its tokenizer, and the name under which results are printed."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def context(self) -> int:
        """The longest window the model takes (2048 if its config does not say)."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 2048)


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        UserError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: must be auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"device={name}: this machine has {count} CUDA devices; use device=cpu")
    return device


def load_model(
    config: ModelConfig,
    device: torch.device,
    offload: str = "none",
    scratch: Path | None = None,
) -> LoadedModel:
    """Load the model that `config` names, in evaluation mode, onto `device`.

    ``dtype=auto`` is the checkpoint's on a GPU and float32 on a CPU.

    Args:
        config: which model.
        device: where it computes.
        offload: where blocks wait that are not at work: ``none`` (there), ``blocks``, ``disk``.
        scratch: folder for blocks that are written under ``offload=disk``.

    Raises:
        UserError: nothing there, no decoder-only model, no weights, or NaN in the weights.
    """
    folder, gguf = _locate(config)
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if not Path(folder).is_dir() and unreachable():
        options["local_files_only"] = True  # from the cache, without minutes of retries
    if config.revision:
        options["revision"] = config.revision
    if gguf:
        options["gguf_file"] = gguf
    dtype: Any = DTYPES.get(config.dtype, "auto" if device.type == "cuda" else torch.float32)
    try:
        with _quiet():
            described = AutoConfig.from_pretrained(folder, **options)
            if described.is_encoder_decoder or _is_encoder(described):
                raise UserError(
                    f"model.path={folder}: {described.model_type} is not a decoder-only model"
                )
            if offload == "disk":
                if gguf:
                    raise UserError(f"offload=disk: {gguf} is no safetensors; use offload=blocks")
                place = snapshot(folder, config.revision)
                kind = None if dtype == "auto" else dtype
                model = open_on_disk(
                    place, described, kind, device, scratch, config.trust_remote_code
                )
            else:
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model.path={folder}: cannot be loaded ({_gist(error)})") from error
    model = model.eval().requires_grad_(False)
    if offload == "none":
        model = model.to(device)
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            if offload == "disk" and 0 in weight.stride():
                continue  # a block's matrix, read and checked when its turn comes
            raise UserError(f"model: '{name}' has NaN or infinite entries")
    if offload == "blocks":
        place_on_host(model, device)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model.path={folder}: no tokenizer ({_gist(error)})") from error
    return LoadedModel(model, tokenizer, config.name or config.path)


def _gist(error: Exception) -> str:
    """What is wrong, and what helps where `transformers` says it in its own terms."""
    text = str(error).strip() or repr(error)
    first = text.splitlines()[0].rstrip(".")
    if "trust_remote_code" in text:
        return f"{first}; if you trust its code: model.trust_remote_code=true"
    if "gated repo" in text or "401" in text or "403" in text:
        return f"{first}; ask for access on its page and set HF_TOKEN to a token of yours"
    return first


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `transformers`; the stages of a run have their own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _is_encoder(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    known = own_code or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    causal = any("CausalLM" in name for name in config.architectures or [])
    return (not known) or (config.model_type in ("bert", "roberta", "electra") and not causal)


def _locate(config: ModelConfig) -> tuple[str, str | None]:
    """Folder or hub name, and the GGUF file in it if that is what is loaded."""
    if config.source == "zoo":
        folder = ZOO / config.path
        if not folder.is_dir():
            known = sorted(path.name for path in ZOO.glob("*/"))
            raise UserError(
                f"model.path={config.path}: not in the zoo{nearest(config.path, known)}"
            )
        return str(folder), None
    if config.source == "package":
        spec = find_spec(config.path)
        if spec is None or not spec.submodule_search_locations:
            extra = config.path.removeprefix("llm_")
            raise UserError(
                f"model: package {config.path} is missing; pip install 'neuroal[{extra}]'"
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
    """The local folder of a model: itself, or the hub's, downloaded if need be."""
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json"]
    offline = bool(unreachable())
    return Path(
        snapshot_download(
            folder, revision=revision, allow_patterns=patterns, local_files_only=offline
        )
    )


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise UserError(f"model.path={path}: no config.json in it")
    weights = ("*.safetensors", "*.bin", "*.safetensors.index.json")
    if not any(any(path.glob(pattern)) for pattern in weights):
        raise UserError(f"model.path={path}: no weights (*.safetensors, *.bin) in it")


def _check_hub(name: str, revision: str | None) -> None:
    """Say at once, not after minutes of retries, that the hub cannot be reached."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    if why := unreachable():
        wanted = f"{name} --revision {revision}" if revision else name
        raise UserError(
            f"model.path={name}: no such folder, not in the Hugging Face cache, and the hub cannot "
            f"be reached ({why}); download it where there is network: hf download {wanted}"
        )


def save_model(loaded: LoadedModel, folder: str | Path, plan: Mapping[str, Any]) -> None:
    """Write model, tokenizer and ``plan.json`` as a Hugging Face folder, whole or not at all."""
    target = Path(folder)
    part = target.with_name(target.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if hasattr(loaded.model.config, "quantization_config"):
            del loaded.model.config.quantization_config  # it was dequantised when it was loaded
            loaded.model.hf_quantizer = None  # or older releases refuse to write it
        if placement_of(loaded.model).offloads:
            save_offloaded(loaded.model, part)
        else:
            loaded.model.save_pretrained(part)
        loaded.tokenizer.save_pretrained(part)
        (part / "plan.json").write_text(json.dumps(plan))
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:
        raise UserError(f"save.model={folder}: cannot be written ({error})") from error
