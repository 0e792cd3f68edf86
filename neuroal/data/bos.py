"""BOS, the token that begins a sequence, at the start of windows.

Windows are cut from one long stream, in which only the first window begins with BOS. A model that
was trained to see BOS first, such as Gemma, predicts badly without it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from neuroal.errors import UserError


def begin_with_bos(tokens: Tensor, tokenizer: Any, key: str) -> Tensor:
    """Return a copy of windows (windows, seqlen) whose first token is replaced by BOS.

    Raises:
        UserError: the tokenizer has no BOS token; names `key`, whose value is ``window``.
    """
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        raise UserError(f"{key}=window: the tokenizer has no BOS token; use {key}=stream")
    windows = tokens.clone()
    windows[:, 0] = bos
    return windows


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts BOS at the start of a text."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
