"""The targets of ``save.model`` and ``save.plan``: whose content they hold, and replacing it.

Only what NeuroAL wrote is ever replaced. The same run accepts its own complete output and replaces
a partial one; the output of another run is replaced only with ``save.overwrite=true``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroal.errors import UserError
from neuroal.files.atomic import write_json
from neuroal.files.manifest import MANIFEST, Manifest, remove_written
from neuroal.files.process import is_temporary, remove_abandoned, temporary_path

OLD = ".old"
"""Suffix of the hidden name of a folder while another one takes its place."""
REPLACE = "set save.overwrite=true to replace it, or use another name"


@dataclass(frozen=True)
class ModelFolder:
    """The folder ``save.model`` of one run.

    The model is written to a hidden folder beside it, which then takes its name. At any moment the
    previous complete folder or the new one exists, under the name of the target or a hidden one,
    and the next start of the run puts it in its place.

    Attributes:
        path: the folder as configured.
        identity: identity of the run.
        overwrite: replace the saved model of another run.
        format: layout of the matrices, ``dense`` or ``compressed``.
    """

    path: str | Path
    identity: str
    overwrite: bool = False
    format: str = "dense"

    @property
    def folder(self) -> Path:
        return Path(os.path.realpath(self.path))

    def is_complete(self) -> bool:
        """Return whether the folder holds the complete model of this run, in its format."""
        manifest = Manifest.read(self.folder)
        if manifest is None or manifest.identity != self.identity:
            return False
        return manifest.format == self.format and manifest.is_complete(self.folder)

    def check(self, again: bool = False) -> None:
        """Raise `UserError` if the folder holds what this run must not replace.

        `again`: the model is written even if the folder holds it already.
        """
        check_saved_by_neuroal(self.path)
        manifest = Manifest.read(self.folder)
        if manifest is None or (self.is_complete() and not again):
            return
        strangers = manifest.strangers(self.folder) if manifest.files else []
        if strangers:
            raise UserError(
                f"save.model={self.path}: holds {strangers[0]}, which NeuroAL did not write; "
                "move it, or name another folder"
            )
        if self.overwrite:
            return
        if manifest.identity != self.identity:
            other = f"holds the model of another run ({manifest.identity})"
            raise UserError(f"save.model={self.path}: {other}; {REPLACE}")
        if changed := manifest.changed(self.folder):
            raise UserError(
                f"save.model={self.path}: {changed[0]} was changed after this run saved it; "
                f"{REPLACE}"
            )

    def recover(self) -> None:
        """Undo an interrupted `replacing` of this run: restore the folder, delete the hidden.

        A hidden folder stays while the process that writes it runs on this machine.
        """
        try:
            for path in self._hidden():
                if path.name.endswith(OLD) and not self.folder.exists():
                    os.rename(path, self.folder)
                elif path.name.endswith(OLD):
                    remove_written(path)
                elif not is_temporary(path):  # of version 0.2.0 or earlier
                    shutil.rmtree(path)
        except OSError as error:
            raise UserError(f"save.model={self.path}: cannot be written ({error})") from error
        remove_abandoned(self._beside(), own=True, foreign=True)

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield a new hidden folder to write to; it takes the target's name unless an error occurs.

        Raises:
            UserError: the target holds what this run must not replace.
            OSError: a file cannot be written.
        """
        self.recover()
        self.check(again=True)
        part = temporary_path(self._beside())
        part.mkdir(parents=True)
        try:
            Manifest(self.identity).write(part)
            yield part
            _set_permissions(part)
            Manifest.of(part, self.identity, self.format).write(part)
            self.check(again=True)
            _swap(part, self.folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _beside(self) -> Path:
        """Return the path beside which hidden folders are made."""
        return self.folder.with_name(f"{self.folder.name[:100]}.{self.identity}")

    def _hidden(self) -> list[Path]:
        """Return the hidden folders of this run that an interrupted start left."""
        try:
            siblings = list(self.folder.parent.iterdir())
        except OSError:
            return []
        mine = [path for path in siblings if path.name.startswith(f".{self._beside().name}.")]
        return [path for path in mine if path.is_dir() and not path.is_symlink()]


def _set_permissions(folder: Path) -> None:
    """Give every file below `folder` the permissions of its manifest: those of any new file.

    Libraries that write weights may reserve them to the user.
    """
    mode = (folder / MANIFEST).stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def _swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`, and delete what a run wrote to the previous `target`."""
    old = new.with_name(f"{new.name}{OLD}")
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        if old.exists():
            os.rename(old, target)
        raise
    if old.exists():
        remove_written(old)


def check_saved_by_neuroal(path: str | Path) -> None:
    """Raise `UserError` if the target `path` of ``save.model`` holds anything but a saved model."""
    folder = Path(path)
    if folder.is_symlink():
        real = os.path.realpath(path)
        raise UserError(f"save.model={path}: is a symbolic link; name the folder itself, {real}")
    if os.path.ismount(folder):
        raise UserError(f"save.model={path}: is a mount point; name a new folder inside it")
    if folder.is_dir() and any(folder.iterdir()) and Manifest.read(folder) is None:
        by_former = (folder / "plan.json").is_file() and (folder / "config.json").is_file()
        holds = "a model of NeuroAL 0.1" if by_former else "files that NeuroAL did not write"
        raise UserError(f"save.model={path}: holds {holds}; name a new folder, or empty this one")


@dataclass(frozen=True)
class PlanTarget:
    """The file ``save.plan`` of one run, with the attributes of `ModelFolder`."""

    path: str | Path
    identity: str
    overwrite: bool = False

    def holds(self, plan: Mapping[str, Any]) -> bool:
        """Return whether the file holds `plan`, that of this run.

        Raises:
            UserError: it was changed after this run saved it, and `overwrite` is False.
        """
        stored = read_plan(self.path)
        if stored is None or stored.get("identity") != self.identity:
            return False
        if stored == json.loads(json.dumps({"identity": self.identity, **plan})):
            return True
        if self.overwrite:
            return False
        raise UserError(f"save.plan={self.path}: was changed after this run saved it; {REPLACE}")

    def check(self) -> None:
        """Raise `UserError` if the file is not a plan, or the plan of another run."""
        check_is_plan(self.path)
        plan = read_plan(self.path)
        if plan is not None and plan.get("identity") != self.identity and not self.overwrite:
            run = f" ({plan['identity']})" if plan.get("identity") else ""
            raise UserError(f"save.plan={self.path}: holds the plan of another run{run}; {REPLACE}")

    def write(self, plan: Mapping[str, Any]) -> None:
        """Write `plan` with the identity of the run."""
        self.check()
        try:
            write_json(Path(self.path), {"identity": self.identity, **plan})
        except OSError as error:
            raise UserError(f"save.plan={self.path}: cannot be written ({error})") from error


def read_plan(path: str | Path) -> dict[str, Any] | None:
    """Return the content of a saved plan, or None if `path` is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_plan = isinstance(content, dict) and {"sparsity", "ratios"} <= content.keys()
    return content if is_plan else None


def check_is_plan(path: str | Path) -> None:
    """Raise `UserError` if the target `path` of ``save.plan`` exists and is not a saved plan."""
    if Path(path).is_symlink():
        real = os.path.realpath(path)
        raise UserError(f"save.plan={path}: is a symbolic link; name the file itself, {real}")
    if os.path.lexists(path) and read_plan(path) is None:
        raise UserError(f"save.plan={path}: exists and is not a saved plan; use another name")
