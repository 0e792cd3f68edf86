"""Save a pruned model in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from neuroal.errors import UserError, first_line
from neuroal.files.atomic import write_json
from neuroal.files.machine import line_of
from neuroal.files.outputs import ModelFolder
from neuroal.models.load import LoadedModel
from neuroal.models.offload import save_offloaded
from neuroal.models.pretrained import without_bars
from neuroal.placement.base import placement_of


def save_model(
    loaded: LoadedModel,
    folder: str | Path,
    plan: Mapping[str, Any],
    identity: str,
    overwrite: bool = False,
) -> None:
    """Write model, tokenizer, ``plan.json`` and ``neuroal.json`` to `folder`.

    The files are written to a hidden folder, which then takes the name of `folder`, so a failed
    write keeps the previous content.

    Args:
        loaded: model and tokenizer.
        folder: new or empty folder, or one that this function wrote.
        plan: content of ``plan.json``.
        identity: identity of the run, which ``neuroal.json`` names.
        overwrite: replace the model of another run.

    Raises:
        UserError: `folder` cannot be written, or holds what must not be replaced.
    """
    try:
        with ModelFolder(folder, identity, overwrite).replacing() as part:
            _write(loaded, part)
            write_json(part / "plan.json", {"identity": identity, **plan})
    except (OSError, SafetensorError) as error:
        reason = line_of(error) or first_line(error)
        raise UserError(f"save.model={folder}: cannot be written ({reason})") from error


def _write(loaded: LoadedModel, folder: Path) -> None:
    """Write model and tokenizer to `folder`."""
    if hasattr(loaded.model.config, "quantization_config"):
        del loaded.model.config.quantization_config  # loading dequantised it
        loaded.model.hf_quantizer = None  # older releases refuse to save with a quantizer
    with without_bars():
        if placement_of(loaded.model).offloads:
            save_offloaded(loaded.model, folder)
        else:
            loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
