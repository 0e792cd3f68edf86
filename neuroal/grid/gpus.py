"""Several workers on one machine: each takes a GPU of its own."""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from neuroal.records.lease import leased


def own_device(asked: str) -> str:
    """``device=auto`` on a machine of several GPUs: the first that no other worker has.

    It is kept as long as this process lives. Where all are taken, workers share.
    """
    if asked != "auto":
        return asked
    import torch  # late: it takes seconds

    count = torch.cuda.device_count()
    if count < 2:
        return asked
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    folder = Path(tempfile.gettempdir()) / f"neuroal-gpus-{os.getuid()}"
    return f"cuda:{_own(tuple(visible.split(',')), folder)}"


@cache
def _own(names: tuple[str, ...], folder: Path) -> int:
    """Position in `names` of the GPU that this process takes."""
    held = ExitStack()
    for position, name in enumerate(names):
        if held.enter_context(leased(folder / f"{name}.lock")):
            atexit.register(held.close)
            return position
    return os.getpid() % len(names)
