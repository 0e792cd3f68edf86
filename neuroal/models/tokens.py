"""Check that token ids fit a model's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError

INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
"""Types of token ids."""
PROBE = "The ship sails at dawn."


def embedding_rows(model: Any) -> int:
    """Return the number of rows of the embedding, which token ids index."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_tokens(model: Any, tokens: Tensor, source: str) -> None:
    """Raise `UserError` if an id in `tokens` has no row in the model's embedding.

    `source` begins the error: the key, and what has the tokens.
    """
    if not tokens.numel():
        return
    smallest, largest, rows = int(tokens.min()), int(tokens.max()), embedding_rows(model)
    if smallest < 0 or largest >= rows:
        wrong = smallest if smallest < 0 else largest
        raise UserError(
            f"{source} token id {wrong}, but the model's embedding has {rows} rows "
            f"(ids 0 to {rows - 1}); use the tokenizer that belongs to the model"
        )


def check_tokenizer(tokenizer: Any, path: str) -> None:
    """Raise `UserError` if `tokenizer` was made without its files, and yields no tokens.

    `path` is the folder or file that the tokenizer was read from.
    """
    ids = tokenizer(PROBE, add_special_tokens=False, verbose=False)["input_ids"]
    names = sorted(set(getattr(tokenizer, "vocab_files_names", {}).values()))
    if set(ids) <= {tokenizer.unk_token_id} and not any(
        Path(path, name).exists() for name in names
    ):
        raise UserError(
            f"model.path={path}: the tokenizer yields no tokens, because its files are missing "
            f"({', '.join(names)}); copy those of the model there"
        )


def token_windows(tokens: Tensor | Sequence[Sequence[int]]) -> Tensor:
    """Convert `tokens` to one tensor (windows, seqlen)."""
    try:
        windows = (
            tokens if isinstance(tokens, Tensor) else torch.stack([*map(torch.as_tensor, tokens)])
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"tokens: need windows of token ids, all of one length ({error})"
        ) from error
    if windows.dim() != 2 or windows.dtype not in INTEGERS or windows.shape[0] < 1:
        raise UserError(f"tokens: need token ids (windows, seqlen), not {tuple(windows.shape)}")
    return windows
