"""Assign a GPU to each worker on a machine."""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from neuroal.files.lock import leased


def own_device(device: str) -> str:
    """Return the first GPU that no other worker uses, if `device` is ``auto``; else `device`.

    The GPU is reserved until this process ends. If all GPUs are reserved, workers share them.
    """
    if device != "auto":
        return device
    import torch  # slow to import

    count = torch.cuda.device_count()
    if count < 2:
        return device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    folder = Path(tempfile.gettempdir()) / f"neuroal-gpus-{os.getuid()}"
    return f"cuda:{_own(tuple(visible.split(',')), folder)}"


@cache
def _own(names: tuple[str, ...], folder: Path) -> int:
    """Reserve a GPU for this process; return its position in `names`."""
    locks = ExitStack()
    for position, name in enumerate(names):
        if locks.enter_context(leased(folder / f"{name}.lock")):
            atexit.register(locks.close)
            return position
    return os.getpid() % len(names)
