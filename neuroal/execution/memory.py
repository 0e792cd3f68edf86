"""Estimate how many windows fit into memory at once."""

from __future__ import annotations

import os
import resource
import sys

import torch

from neuroal.models.adapter import DecoderModel

SHARE = 0.25
"""Share of the free memory available to the activations of one batch."""
TENSORS_ALIVE = 8
"""Activations of the widest linear that a block holds at once, including float32 copies."""

ENOUGH_TOKENS = 8 * 2048
"""Tokens in a batch that saturate a GPU; larger batches only take more memory."""


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that can still be allocated on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(reusable)
    # Some systems, such as macOS, do not report free memory: assume half of the total.
    reports_free = "SC_AVPHYS_PAGES" in os.sysconf_names
    pages = os.sysconf("SC_AVPHYS_PAGES") if reports_free else os.sysconf("SC_PHYS_PAGES") // 2
    return pages * os.sysconf("SC_PAGE_SIZE")


def process_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def batch_by_memory(decoder: DecoderModel, windows: int, seqlen: int) -> int:
    """Return the number of windows per forward pass: at least 1 and at most `windows`."""
    widest = max(max(linear.rows, linear.cols) for linear in decoder)
    heads = getattr(decoder.model.config.get_text_config(), "num_attention_heads", 1)
    entries = TENSORS_ALIVE * seqlen * widest + (
        # Without a fused kernel the attention scores are materialised.
        heads * seqlen * seqlen if decoder.device.type == "cpu" else 0
    )
    limit = windows if decoder.device.type == "cpu" else -(-ENOUGH_TOKENS // seqlen)
    return int(max(1, min(windows, limit, SHARE * free_memory(decoder.device) // (4 * entries))))
