"""Continuations of a few prompts, to read what pruning changes in a model's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroal.data.resolve import JsonLines
from neuroal.data.sets import BUILTIN
from neuroal.models.load import LoadedModel
from neuroal.tracking.progress import Progress

PROMPT, LENGTH = 32, 64
"""Maximum number of tokens of a prompt and of its continuation."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Prompts of a model and their continuations before it is pruned.

    Attributes:
        prompts: token ids (prompts, length).
        dense: continuations of the dense model.
    """

    loaded: LoadedModel
    prompts: Tensor
    dense: tuple[str, ...]

    @classmethod
    def before(cls, loaded: LoadedModel, count: int, progress: Progress) -> Samples:
        """Continue `count` prompts with the dense model."""
        prompts = prompts_for(loaded, count)
        dense = continuations(loaded, prompts, progress, "continue dense")
        return cls(loaded, prompts, tuple(dense))

    def after(self, progress: Progress) -> list[dict[str, str]]:
        """Continue the prompts with the pruned model; return the samples as in the record."""
        pruned = continuations(self.loaded, self.prompts, progress, "continue pruned")
        prompts = decoded(self.loaded.tokenizer, self.prompts)
        rows = zip(prompts, self.dense, pruned, strict=True)
        return [dict(zip(("prompt", "dense", "pruned"), row, strict=True)) for row in rows]


def prompts_for(loaded: LoadedModel, count: int) -> Tensor:
    """Return the first tokens of the first `count` built-in evaluation texts: (count, length).

    They begin as the tokenizer begins a text, with BOS or without. If the model's context is less
    than `PROMPT` + `LENGTH` tokens, half of it is the prompt.
    """
    length = min(PROMPT, loaded.context // 2)
    prompts: list[list[int]] = []
    for row in JsonLines(BUILTIN / "evaluation.jsonl.gz"):
        if len(prompts) == count:
            break
        ids = loaded.tokenizer(row["text"], verbose=False)["input_ids"][:length]
        if len(ids) == length:
            prompts.append(ids)
    tokens = torch.tensor(prompts, dtype=torch.int64)
    loaded.check_tokens(tokens, "built-in text")
    return tokens


def decoded(tokenizer: Any, tokens: Tensor) -> list[str]:
    """Return the text of each row of `tokens`: (texts, length), without special tokens."""
    return [str(tokenizer.decode(row, skip_special_tokens=True)) for row in tokens.tolist()]


@torch.no_grad()
def continuations(
    loaded: LoadedModel, prompts: Tensor, progress: Progress, stage: str
) -> list[str]:
    """Return the most probable continuation of each prompt, token by token, up to EOS.

    Args:
        loaded: the model; it may be offloaded.
        prompts: token ids (prompts, length).
        progress: receives progress updates.
        stage: name of the stage in `progress`.
    """
    count = min(LENGTH, loaded.context - prompts.shape[1])
    sequence, cache = prompts.to(loaded.model.device), None
    with progress.stage(stage, count, "token") as step:
        for _ in range(count):
            tokens = sequence if cache is None else sequence[:, -1:]
            output = loaded.model(tokens, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            sequence = torch.cat([sequence, output.logits[:, -1:].argmax(-1)], dim=1)
            step.advance(1)
    own = sequence[:, prompts.shape[1] :].cpu()
    return [decoded(loaded.tokenizer, _until_end(row, loaded.tokenizer)[None])[0] for row in own]


def _until_end(tokens: Tensor, tokenizer: Any) -> Tensor:
    """Return `tokens` up to the first EOS, which is left out."""
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is None:
        return tokens
    ends = tokens.eq(eos).nonzero()
    return tokens[: int(ends[0])] if len(ends) else tokens
