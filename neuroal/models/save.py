"""Save a pruned model in the Hugging Face format."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from neuroal.errors import UserError, first_line
from neuroal.files.atomic import write_json
from neuroal.files.machine import line_of
from neuroal.files.outputs import ModelFolder
from neuroal.models.compressed import compress_folder
from neuroal.models.load import LoadedModel
from neuroal.models.offload import save_offloaded
from neuroal.models.pretrained import without_bars
from neuroal.placement.base import placement_of

log = logging.getLogger(__name__)


def save_model(
    loaded: LoadedModel,
    target: ModelFolder,
    plan: Mapping[str, Any],
    card: str = "",
    structure: str = "unstructured",
) -> None:
    """Write model, tokenizer, ``plan.json``, ``README.md`` and ``neuroal.json`` to a folder.

    The files are written to a hidden folder, which then takes the name of the target, so a failed
    write keeps the previous content.

    Args:
        loaded: model and tokenizer.
        target: new or empty folder, or one that this function wrote; its `format` is the layout.
        plan: content of ``plan.json``.
        card: content of ``README.md``; empty: no such file.
        structure: pattern of the zeros, such as ``2:4``, for a compressed model.

    Raises:
        UserError: `target` cannot be written, or holds what must not be replaced.
    """
    try:
        with target.replacing() as part:
            _write(loaded, part)
            if target.format == "compressed":
                compress_folder(part, structure)
            write_json(part / "plan.json", {"identity": target.identity, **plan})
            if card:
                (part / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = line_of(error) or first_line(error)
        raise UserError(f"save.model={target.path}: cannot be written ({reason})") from error
    dtype = saved_dtype(loaded)
    if loaded.stored_dtype not in (None, dtype):
        log.info(
            "save.model=%s: saved in %s; its checkpoint has %s, which model.dtype=%s keeps",
            *(target.path, dtype, loaded.stored_dtype, loaded.stored_dtype),
        )


def saved_dtype(loaded: LoadedModel) -> str:
    """Return the dtype in which the weights of a model are saved."""
    return str(loaded.model.dtype).removeprefix("torch.")


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
