"""Random LLaMA models of a given shape, random tokens, and the work of a pass over them."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from bench.common import DEVICE, median_seconds
from neuroal.models.adapter import DecoderModel, find_blocks
from neuroal.placement.layout import moved
from neuroal.pruners.base import Pruner
from neuroal.pruners.settings import PruningSettings
from neuroal.search.context import AllocationContext
from neuroal.tracking import Progress, QuietProgress

SHAPES = {
    "7b": (32, 4096, 11008, 32),
    "65b": (80, 8192, 22016, 64),
    "30b": (60, 6656, 17920, 52),
    "1b": (16, 2048, 5632, 16),
    "tiny": (3, 64, 96, 4),
}
"""Blocks, width, MLP width, heads. Three blocks, because offloading keeps two of them on a GPU."""
VOCABULARY = 32000
DEVIATION = 0.02
"""Standard deviation of random weights."""


def shape_name(shape: str, blocks: int | None) -> str:
    """Return the name of a shape in measurements: 7b, or 7b-4deep with four blocks."""
    return f"{shape}-{blocks}deep" if blocks else shape


def llama_config(shape: str, dtype: str, blocks: int | None = None) -> LlamaConfig:
    """Return the configuration of a LLaMA of `shape`, with `blocks` blocks if given."""
    depth, width, inner, heads = SHAPES[shape]
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks or depth,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        dtype=getattr(torch, dtype),
    )


def random_llama(
    config: LlamaConfig, *, alike: bool = False, on_host: bool = False
) -> DecoderModel:
    """Return a LLaMA with random weights, drawn on the device.

    Args:
        config: from `llama_config`.
        alike: give all blocks the same initial weights.
        on_host: leave the blocks' weights in host memory; with `alike`, blocks share them.
    """
    return DecoderModel(random_model(config, alike=alike, on_host=on_host))


def random_model(
    config: PretrainedConfig, *, alike: bool = False, on_host: bool = False
) -> PreTrainedModel:
    """Return a model of `config` as `random_llama` does."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    generator = torch.Generator(DEVICE).manual_seed(0)
    names = {id(part): name for block in find_blocks(model)[1] for name, part in moved(block)}
    shared: dict[str, Tensor] = {}
    for path, parameter in list(model.named_parameters()):
        name = names.get(id(parameter))
        weight = shared.get(name or path)
        if weight is None:
            weight = random_weight(parameter.shape, config.dtype, generator)
            weight = weight.cpu() if on_host and name else weight
            if alike and name:
                shared[name] = weight
        elif not on_host:
            weight = weight.clone()
        module, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(module), leaf, nn.Parameter(weight, requires_grad=False))
    return model if on_host else model.to(DEVICE)


def random_weight(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return ones for a norm, normal random numbers for a matrix."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype, device=DEVICE)
    weight = torch.empty(shape, dtype=dtype, device=DEVICE)
    return weight.normal_(0, DEVIATION, generator=generator)


@torch.no_grad()
def redraw(decoder: DecoderModel) -> None:
    """Replace pruned weights by new dense random weights."""
    generator = torch.Generator(DEVICE).manual_seed(1)
    for linear in decoder:
        linear.weight.normal_(0, DEVIATION, generator=generator)


def random_tokens(windows: int, seqlen: int) -> Tensor:
    """Return token ids (windows, seqlen)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (windows, seqlen), generator=generator)


def allocation_context(
    decoder: DecoderModel,
    pruner: Pruner,
    sparsity: float,
    tokens: Tensor,
    batch: int | None = None,
    progress: Progress | None = None,
) -> AllocationContext:
    """Return the context of a top-up with exact budgets; by default all windows in one batch."""
    return AllocationContext(
        decoder=decoder,
        settings=PruningSettings(pruner, sparsity),
        tokens=tokens,
        batch=batch or len(tokens),
        progress=progress or QuietProgress(),
    )


def matrix_rate(dtype: str) -> float:
    """Return the floating-point operations per second of a large matrix product in `dtype`."""
    size = 8192 if DEVICE.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=DEVICE, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, 20)


def products(decoder: DecoderModel, tokens: Tensor, *, last: bool) -> float:
    """Return the floating-point operations of the linears and the causal attention of one pass.

    `last` includes the last linear of every block.
    """
    count, seqlen = tokens.numel(), tokens.shape[1]
    total = 0.0
    for linears in decoder.linears:
        counted = linears if last else linears[:-1]
        total += 2 * count * sum(linear.numel for linear in counted)
        total += 2 * count * seqlen * linears[0].cols
    return total
