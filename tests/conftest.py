"""Settings of all tests."""

from __future__ import annotations

import os

import torch

# Workers of one machine must not fight for its cores; results do not depend on it.
torch.set_num_threads(int(os.environ.get("NEUROAL_TEST_THREADS", "1")))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not torch.cuda.is_available():
    # Before anything imports Triton, where there is one: its interpreter tests the kernels.
    os.environ.setdefault("TRITON_INTERPRET", "1")
