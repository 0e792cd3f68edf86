"""Report figures of a model that computes no probabilities, or hardly more than chance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from neuroal.errors import UserError

CHANCE = 0.9
"""Share of the vocabulary size from which a perplexity counts as guessing."""


def require_finite(task: str, figures: Mapping[str, Any]) -> None:
    """Raise `UserError` if the perplexity of the dense model on `task` is not finite."""
    if not math.isfinite(figures.get("value", 0.0)):
        raise UserError(
            f"model: perplexity on {task} is not finite; try model.dtype=float32 or bfloat16"
        )


def warn_if_infinite(task: str, figures: Mapping[str, Any]) -> None:
    """Warn if a perplexity is not finite, as after an overflow."""
    if not math.isfinite(figures.get("value", 0.0)):
        warnings.warn(
            f"task={task}: the perplexity is not finite, and is recorded as infinite",
            stacklevel=2,
        )


def warn_if_chance(task: str, figures: Mapping[str, Any], vocabulary: int) -> None:
    """Warn if the perplexity of the dense model is about that of uniform guesses."""
    if "metric" not in figures and figures.get("value", 0.0) >= CHANCE * vocabulary:
        warnings.warn(
            f"model: perplexity {figures['value']:.4g} on {task} is that of guessing among "
            f"{vocabulary} tokens; check the model, its tokenizer and the language of the text",
            stacklevel=2,
        )
