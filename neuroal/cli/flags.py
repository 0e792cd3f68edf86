"""Flags of the commands ``neuroal`` and ``neuroal-eval``: their own, and those of Hydra."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NoReturn

from neuroal.errors import UserError, nearest

SWITCH = {"action": "store_true"}
HYDRA_FLAGS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--multirun", "-m"): SWITCH,
    ("--run", "-r"): SWITCH,
    ("--resolve",): SWITCH,
    ("--hydra-help",): SWITCH,
    ("--shell-completion", "-sc"): SWITCH,
    ("--help", "-h"): SWITCH,
    ("--version",): SWITCH,
    ("--package", "-p"): {},
    ("--config-dir", "-cd"): {},
    ("--config-name", "-cn"): {},
    ("--cfg", "-c"): {"choices": ("job", "hydra", "all")},
    ("--info", "-i"): {
        "nargs": "?",
        "const": "all",
        "choices": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    },
}
"""Names of a flag of Hydra → its arguments of `argparse`."""
OUTPUT_FLAGS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--quiet", "-q"): SWITCH | {"help": "no progress and no notes: warnings and results alone"},
    ("--verbose", "-v"): SWITCH | {"help": "report begin, end and seconds of every stage"},
    ("--json",): SWITCH | {"help": "print results as JSON"},
}
"""Flags that decide what is printed."""
OWN_FLAGS = {**OUTPUT_FLAGS, ("--dry-run", "-n"): SWITCH}


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises `UserError` instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def add_flags(self, flags: dict[tuple[str, ...], dict[str, Any]]) -> None:
        """Add all `flags`."""
        for names, options in flags.items():
            self.add_argument(*names, **options)


def parse_flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags and the overrides; they may appear in any order.

    ``--quiet`` is also the override ``progress=none``, unless another one sets it.
    """
    parser = ArgumentParser("neuroal", add_help=False, allow_abbrev=False)
    parser.add_flags({**HYDRA_FLAGS, **OWN_FLAGS})
    parser.add_argument("overrides", nargs="*")
    flags, rest = parser.parse_known_intermixed_args(arguments)
    if rest:
        raise UserError(
            f"{rest[0]}: no such flag{nearest(rest[0], chain(*HYDRA_FLAGS, *OWN_FLAGS))}"
        )
    return flags, with_progress(flags.overrides, flags.quiet)


def with_progress(overrides: Sequence[str], quiet: bool) -> list[str]:
    """Return `overrides` without progress if `quiet`, unless they choose it."""
    chosen = any(text.lstrip("+").startswith("progress=") for text in overrides)
    return [*overrides, *(["progress=none"] if quiet and not chosen else [])]


def for_hydra(flags: argparse.Namespace) -> Iterator[str]:
    """Yield the flags of Hydra as arguments."""
    for name, *_ in HYDRA_FLAGS:
        value = getattr(flags, name.lstrip("-").replace("-", "_"))
        if value:
            yield name if value is True else f"{name}={value}"
