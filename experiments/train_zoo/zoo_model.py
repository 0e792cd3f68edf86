"""The zoo's models as `train_zoo.py` trains them: construction, batches and loss."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional


def causal_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Return causal attention without a mask tensor, so that compilation keeps the fast kernels."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    query, key = query.to(value.dtype), key.to(value.dtype)
    mixed = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=kwargs.get("scaling")
    )
    return mixed.transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("zoo_causal", causal_attention)


def build(settings: dict[str, Any], vocab: int, context: int) -> transformers.PreTrainedModel:
    """Return a new model of the family that `settings` names, in float32 on the CPU."""
    arguments = {key: value for key, value in settings.items() if key != "class"}
    config = getattr(transformers, settings["class"])(
        vocab_size=vocab,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,  # a padding token would have an untrained input embedding
        **arguments,
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


class Batches:
    """Windows of a token stream; batch `step` is a function of the seed and the step."""

    def __init__(self, stream: Tensor, context: int, batch: int, seed: int) -> None:
        self.stream, self.context, self.batch, self.seed = stream, context, batch, seed
        self.windows = (
            len(stream) // context - 1
        )  # one less, because every pass starts at a random offset
        if self.windows < batch:
            raise SystemExit(f"{self.windows} windows of text are fewer than a batch of {batch}")
        self.steps = self.windows // batch
        self.epoch = -1

    def __call__(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.steps)
        if epoch != self.epoch:
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            offset = int(torch.randint(self.context, (), generator=random))
            order = torch.randperm(self.windows, generator=random)
            self.starts = (order * self.context + offset).to(self.stream.device)
            self.epoch = epoch
            self.span = torch.arange(self.context, device=self.stream.device)
        starts = self.starts[position * self.batch : (position + 1) * self.batch]
        return self.stream[starts[:, None] + self.span].long()


@torch.no_grad()
def mean_loss(model: torch.nn.Module, stream: Tensor, context: int, batch: int) -> float:
    """Return the mean negative log-likelihood of all tokens but the first of each window."""
    count = len(stream) // context
    windows = stream[: count * context].view(count, context)
    total = 0.0
    for part in windows.split(batch):
        part = part.long()
        total += model(input_ids=part, labels=part, use_cache=False).loss.item() * len(part)
    return total / count
