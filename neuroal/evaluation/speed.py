"""Speed and memory of a model: reading a prompt (prefill) and writing tokens (decode)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from neuroal.execution.memory import process_peak_bytes
from neuroal.models.adapter import DecoderModel
from neuroal.models.semi_structured import has_two_of_four, use_kernels, why_no_kernels

PROMPT, NEW = 512, 32
"""Tokens of the prompt and tokens that are written, or fewer in a shorter context."""
REPEATS = 3
"""Measurements of which the median counts, after one that warms up."""


@dataclass(frozen=True)
class Speed:
    """One measurement.

    Attributes:
        kernels: ``dense``, or ``2:4`` for kernels that skip zeros.
        batch: sequences at once.
        prompt: tokens of each prompt.
        prefill: tokens of prompts read in a second.
        decode: tokens written in a second, by all sequences together.
        weight_bytes: size of the model's weights in memory.
        peak_bytes: peak memory: of the device on a GPU, of the whole process on a CPU.
    """

    kernels: str
    batch: int
    prompt: int
    prefill: float
    decode: float
    weight_bytes: int
    peak_bytes: int


def speeds(model: Any, context: int, batch: int = 1) -> Iterator[Speed]:
    """Yield the speed of `model` with dense kernels, then with 2:4 kernels if it can use them.

    The second measurement replaces the weights of `model`.

    Args:
        model: causal language model of `transformers`, in evaluation mode.
        context: maximum number of tokens of `model`.
        batch: sequences at once.
    """
    yield measure_speed(model, context, batch, "dense")
    decoder = DecoderModel(model)
    if has_two_of_four(decoder) and why_no_kernels(decoder) is None:
        use_kernels(decoder)
        yield measure_speed(model, context, batch, "2:4")


@torch.no_grad()
def measure_speed(model: Any, context: int, batch: int, kernels: str) -> Speed:
    """Measure prefill and greedy decoding with a cache of keys and values."""
    new = min(NEW, context // 4)
    prompt = min(PROMPT, context - new)
    vocabulary = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (batch, prompt), generator=generator).to(model.device)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    prefills, decodes = [], []
    for _ in range(1 + REPEATS):
        seconds, output = _timed(model.device, lambda: model(tokens, use_cache=True))
        prefills.append(seconds)
        last, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
        decodes.append(_timed(model.device, _writing(model, last, cache, new))[0])
    on_gpu = model.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(model.device) if on_gpu else process_peak_bytes()
    return Speed(
        kernels=kernels,
        batch=batch,
        prompt=prompt,
        prefill=batch * prompt / median(prefills[1:]),
        decode=batch * new / median(decodes[1:]),
        weight_bytes=sum(_bytes(parameter) for parameter in model.parameters()),
        peak_bytes=peak,
    )


def _writing(model: Any, last: Tensor, cache: Any, count: int) -> Callable[[], None]:
    """Return a function that writes `count` tokens after `last`, one at a time."""

    def write() -> None:
        token, state = last, cache
        for _ in range(count):
            output = model(token, past_key_values=state, use_cache=True)
            token, state = output.logits[:, -1:].argmax(-1), output.past_key_values

    return write


def _timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work` takes, and its result."""
    _wait(device)
    begin = time.perf_counter()
    outcome = work()
    _wait(device)
    return time.perf_counter() - begin, outcome


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _bytes(parameter: Tensor) -> int:
    """Return the size of a parameter; a 2:4 tensor holds values and their positions."""
    packed = getattr(parameter, "packed", None)
    if packed is None:
        return parameter.nbytes
    meta = getattr(parameter, "meta", None)
    return int(packed.nbytes) + (int(meta.nbytes) if meta is not None else 0)
