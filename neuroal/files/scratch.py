"""Temporary folders, which a later process deletes if the process that made them was killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp

from neuroal.files.lock import Holder, this_process

OWNER = "owner"
"""File in a temporary folder that names the process that made it."""


def new_scratch(beginning: Path | None) -> Path:
    """Create a temporary folder whose path starts with `beginning`; None: in the system's folder.

    Raises:
        OSError: the folder cannot be created.
    """
    if beginning is None:
        folder = Path(mkdtemp(prefix="neuroal-"))
    else:
        folder = Path(mkdtemp(prefix=beginning.name, dir=beginning.parent))
    (folder / OWNER).write_text(this_process())
    return folder


def remove_abandoned(beginning: Path, own: bool = False) -> None:
    """Delete the folders of `new_scratch` whose process does not run on this machine.

    Call it while holding the lock of the run whose folders start with `beginning`, so that no other
    process uses them, except one that was suspended and lost the lock. With `own`, the folders of
    this process are deleted as well.
    """
    for folder in beginning.parent.glob(f"{beginning.name}*"):
        holder = Holder.read(folder / OWNER)
        in_use = holder is not None and holder.is_here()
        if not in_use or (own and holder is not None and holder.is_this_process()):
            shutil.rmtree(folder, ignore_errors=True)
