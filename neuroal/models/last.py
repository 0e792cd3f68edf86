"""The model that was loaded last, for the next run of a sweep."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from neuroal.config.schema import ModelConfig
from neuroal.models.content import model_content

if TYPE_CHECKING:
    import torch

    from neuroal.models.load import LoadedModel

LARGEST = 4 * 2**30
"""Size in bytes up to which a model is kept: each process of a sweep keeps one in host memory."""


class LastModel:
    """Loads models, and keeps a copy of the last one in host memory.

    Dequantising a GGUF file with a large vocabulary takes half a minute, and a sweep prunes the
    same model again and again. A model with more than `LARGEST` bytes, or whose weights are
    offloaded, is read again for every run.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._copy: LoadedModel | None = None

    def load(
        self,
        config: ModelConfig,
        device: torch.device,
        offload: str = "none",
        scratch: Path | None = None,
        devices: int = 1,
    ) -> LoadedModel:
        """Return the model that `config` names, which the caller may change (see `load_model`).

        The copy is used if the files of the model have not changed since it was read.
        """
        from neuroal.models.load import load_model  # late: imports torch

        content = model_content(config)
        key = (dataclasses.astuple(config), device.type, content)
        if self._copy is not None and key == self._key and offload == "none":
            return _moved(copy.deepcopy(self._copy), device)
        self._copy = None
        loaded = load_model(config, device, offload, scratch, devices)
        if (
            content is not None
            and offload == "none"
            and loaded.model.get_memory_footprint() <= LARGEST
        ):
            self._copy = copy.deepcopy(_moved(loaded, "cpu"))
            self._key = key
            _moved(loaded, device)
        return loaded


def _moved(loaded: LoadedModel, device: torch.device | str) -> LoadedModel:
    loaded.model.to(device)
    return loaded
