"""How many windows fit into memory at once."""

from __future__ import annotations

import os
import resource
import sys

import torch

from neuroal.models.adapter import DecoderModel

SHARE = 0.25
"""Share of the free memory that the activations of one batch may take."""
TENSORS_ALIVE = 8
"""Activations of the widest linear alive at once in a block, float32 copies included."""

ENOUGH_TOKENS = 8 * 2048
"""In a batch on a GPU; more keep it no busier, but fill its memory."""


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(reusable)
    # Not every system says how much is free (macOS does not); half of all of it is a guess.
    free_pages = "SC_AVPHYS_PAGES" in os.sysconf_names
    pages = os.sysconf("SC_AVPHYS_PAGES") if free_pages else os.sysconf("SC_PHYS_PAGES") // 2
    return pages * os.sysconf("SC_PAGE_SIZE")


def process_peak_bytes() -> int:
    """The most resident memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def batch_by_memory(subject: DecoderModel, windows: int, seqlen: int) -> int:
    """Windows that one forward pass through a block may take: at least 1, at most `windows`."""
    widest = max(max(linear.rows, linear.cols) for linear in subject)
    heads = getattr(subject.model.config.get_text_config(), "num_attention_heads", 1)
    numbers = TENSORS_ALIVE * seqlen * widest + (
        # Without a fused kernel the attention scores are materialised.
        heads * seqlen * seqlen if subject.device.type == "cpu" else 0
    )
    most = windows if subject.device.type == "cpu" else -(-ENOUGH_TOKENS // seqlen)
    return int(max(1, min(windows, most, SHARE * free_memory(subject.device) // (4 * numbers))))
