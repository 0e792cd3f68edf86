"""Settings shared by all tests."""

from __future__ import annotations

import os
import tempfile

import torch

# Test workers share the cores of a machine; results do not depend on the number of threads.
torch.set_num_threads(int(os.environ.get("NEUROAL_TEST_THREADS", "1")))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NEUROAL_CACHE", tempfile.mkdtemp(prefix="neuroal-"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not torch.cuda.is_available():
    # Set before Triton is imported, so that its interpreter runs the kernels on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")
