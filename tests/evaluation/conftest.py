"""The model that the tests of this folder share."""

from __future__ import annotations

import pytest
import torch

from neuroal.config.schema import ModelConfig
from neuroal.models.load import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu"))
