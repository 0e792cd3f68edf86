"""Print the licence of every installed package as a Markdown table (``make licences``)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

LONGEST = 80
"""Characters of a licence; some packages give its whole text instead of its name."""


def licence(package: Distribution) -> str:
    """Return the licence expression, the classifiers or the first line of the field ``License``."""
    fields = package.metadata
    classifiers = [
        text.rpartition("::")[2].strip()
        for text in fields.get_all("Classifier") or ()
        if text.startswith("License ::")
    ]
    lines = (fields.get("License") or "").strip().splitlines()
    text = fields.get("License-Expression") or "; ".join(classifiers) or "".join(lines[:1])
    return text[:LONGEST] or "not declared"


def rows() -> Iterator[str]:
    """Yield one row for each package, by name."""
    packages = {package.metadata["Name"]: package for package in distributions()}
    for name in sorted(packages, key=str.lower):
        yield f"| {name} | {packages[name].version} | {licence(packages[name])} |"


if __name__ == "__main__":
    print("| package | version | licence |", "|---|---|---|", *rows(), sep="\n")
