"""Errors of the machine, such as a full disk, as one line that names the file and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from neuroal.errors import UserError, first_line, shortened
from neuroal.files.gpu_errors import is_memory_error

KEPT = "finished stages are kept"
FREE = f"free some space and start again; {KEPT}"
MORE_MEMORY = (
    "use a smaller batch, offload=blocks, fewer workers per GPU or a machine with more memory"
)
REMEDIES = {
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EFBIG: f"raise the limit of file sizes (ulimit -f) and start again; {KEPT}",
    errno.EROFS: "name a writable folder",
    errno.EACCES: "change its permissions, or name another folder",
    errno.EPERM: "change its permissions, or name another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n) and start again",
    errno.ENOENT: f"it may have been deleted during the run; start again; {KEPT}",
}
"""Error number → what helps."""
IN_TEXT = {f"(os error {number})": number for number in REMEDIES}
"""How libraries that are written in Rust, such as safetensors, name an error of the system."""


class MachineError(UserError):
    """The machine refused: no space, no permission, no memory, or a file that vanished."""


@contextmanager
def machine_errors(where: str = "") -> Iterator[None]:
    """Raise `MachineError`, one line, for an error of the machine inside; leave other errors alone.

    `where` names a key and its value, for errors that do not name their file.
    """
    try:
        yield
    except Exception as error:
        line = line_of(error, where)
        if line is None:
            raise
        raise MachineError(line) from error


def line_of(error: Exception, where: str = "") -> str | None:
    """Return the line for an error of the machine, or None for another error."""
    if isinstance(error, UserError | ConnectionError):  # the latter: not an error of a file
        return None
    if is_memory_error(error):
        return f"memory does not suffice ({first_line(error)}); {MORE_MEMORY}"
    number = _number(error)
    if number is None:
        return None
    filename = getattr(error, "filename", None)
    named = shortened(filename) if filename not in (None, -1) else where
    reason = (getattr(error, "strerror", None) or first_line(error)).lower()
    remedy = REMEDIES.get(number, "check the file system, and start again")
    return f"{named}: {reason}; {remedy}" if named else f"{reason}; {remedy}"


def _number(error: Exception) -> int | None:
    """Return the number of an error of the operating system; None: it is another error."""
    if isinstance(error, OSError):
        return error.errno
    return next((number for text, number in IN_TEXT.items() if text in str(error)), None)
