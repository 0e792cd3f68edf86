"""Errors of a GPU: those for lack of memory, and those after which a process cannot use it."""

from __future__ import annotations

import re

from neuroal.errors import first_line

MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
)
"""Message fragments of errors for lack of memory."""
HANDLE = re.compile(
    r"STATUS_(NOT_INITIALIZED|INTERNAL_ERROR|ALLOC_FAILED),? when calling "
    r"`?cu(blas|blasLt|solverDn|solverSp|sparse|dnn)Create\("
)
"""A library of CUDA could not create its handle, which takes memory of the GPU."""
FULL_CARD = (
    "Expected mha_graph.execute(handle, variant_pack, workspace_ptr.get()).is_good() to be true",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
)
"""Message fragments of errors of cuDNN that are for lack of memory if the card is full."""
LITTLE = 2**30
"""Free bytes of a GPU below which it is full: libraries allocate hundreds of MiB at once."""


def is_memory_error(error: BaseException) -> bool:
    """Return whether `error` reports that the memory of the machine or of a GPU does not suffice.

    Errors of cuDNN that do not name their cause do so if the GPU is nearly full (`LITTLE`).
    """
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if any(part in text for part in MEMORY) or HANDLE.search(text):
        return True
    return any(part in text for part in FULL_CARD) and _is_full()


def _is_full() -> bool:
    import torch  # slow to import; an error of cuDNN comes from torch

    try:
        free, _ = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError):  # the GPU failed, or torch has no CUDA
        return False
    return free < LITTLE


def is_gpu_failure(error: BaseException) -> bool:
    """Return whether `error` is one of the GPU or its driver, and not of memory or of a kernel.

    An assertion of a kernel, as for an index out of range, is due to the kernel's input.
    """
    text = str(error)
    is_of_cuda = "CUDA error:" in text or "CUDA unknown error" in text
    return is_of_cuda and "device-side assert" not in text and not is_memory_error(error)


def lost_gpu(device: str) -> str | None:
    """Return why this process cannot use the GPU `device` any more; None: it can.

    After an illegal address, an unknown error and others, every later call of CUDA fails in the
    same way until the process ends. Asks the driver, because messages do not tell these apart.
    """
    import torch

    if device == "cpu" or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize(None if device == "auto" else device)
    except RuntimeError as fault:
        return None if is_memory_error(fault) else first_line(fault)
    return None
