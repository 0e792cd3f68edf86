"""Warn about versions of PyTorch and transformers that the tests have not run with."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import version

TESTED = {"torch": ((2, 11), (2, 13)), "transformers": ((5, 17), (5, 23))}
"""Oldest and newest version that passed ``make test-matrix``, as in pyproject.toml."""


def warn_of_untested_versions() -> None:
    """Warn once for each package that is older or newer than the tested versions."""
    for package, (oldest, newest) in TESTED.items():
        installed = version(package)
        numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:2])
        if not oldest <= numbers <= newest:
            low, high = (".".join(map(str, numbers)) for numbers in (oldest, newest))
            above = f"{newest[0]}.{newest[1] + 1}"
            warnings.warn(
                f"{package} {installed} is not tested (tested: {low} to {high}), so results may "
                f"differ; pip install '{package}>={low},<{above}'",
                stacklevel=3,
            )
