"""`UserError`, the exception for mistakes of the user, and helpers for its messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable that adds tracebacks to the lines of errors, unless it is 0."""
LONGEST_WORD, LONGEST_LINE = 300, 1200
"""Maximum lengths, in characters, of a word and of a whole line that is printed."""


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line that names the key, the value and the remedy; `one_line` shortens it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return `text` without control characters; ``…`` replaces the middle of what is too long."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    line = re.sub(r"\S{100,}", lambda word: _cut(word[0], LONGEST_WORD), line)
    return _cut(line, LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    """Return at most `most` characters of `text`: a third of them from its end."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def full_error() -> bool:
    """Return whether the user asks for tracebacks."""
    return os.environ.get(FULL_ERROR, "0") != "0"


def nearest(name: str, options: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the option most similar to `name`, or an empty string."""
    if len(name) > LONGEST_WORD:  # comparing takes time that grows with its square
        return ""
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
