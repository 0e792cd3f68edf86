"""The one exception for mistakes of the user."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend: one line that names the key, the value and the remedy."""


def nearest(name: str, options: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the option most like `name`, or nothing."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Raise `UserError` if `value` is none of `choices`, which are what `key` may be."""
    known = list(choices)
    if value not in known:
        close = nearest(str(value), known)
        raise UserError(f"{key}={value}: must be one of {', '.join(known)}{close}")
