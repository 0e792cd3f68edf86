"""`UserError`, the exception for mistakes of the user, and helpers for its messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line that names the key, the value and the remedy.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the option most similar to `name`, or an empty string."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Raise `UserError` if `value` is not one of `choices`, the valid values of `key`."""
    valid = list(choices)
    if value not in valid:
        close = nearest(str(value), valid)
        raise UserError(f"{key}={value}: must be one of {', '.join(valid)}{close}")


def shortened(value: object, most: int = 200) -> str:
    """Return the text of `value` in one line of at most `most` characters; ``…`` marks a cut."""
    text = " ".join(str(value)[: 2 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error's message, shortened, without a final period."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[0], most=500).rstrip(".") if lines else shortened(repr(error))
