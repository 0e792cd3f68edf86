"""The Dockerfile uses what the checkout has: a supported Python, files, extras and make targets."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_has_a_supported_python() -> None:
    version = re.search(r"^FROM python:3\.(\d+)-", TEXT, re.MULTILINE)
    assert version is not None
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert f"Programming Language :: Python :: 3.{version[1]}" in classifiers


def test_the_image_installs_the_tested_torch_and_an_extra_that_exists() -> None:
    command = re.search(r"\$\((sed [^)]*)\)", TEXT)
    assert command is not None
    torch = subprocess.check_output(["bash", "-c", command[1]], cwd=ROOT, text=True).strip()
    assert f"torch=={torch}" in (ROOT / "constraints.txt").read_text().split()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"dev"} == set(re.findall(r"\.\[(\w+)\]", TEXT)) <= set(extras["optional-dependencies"])


def test_copied_files_and_named_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for sources in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    targets = re.findall(r"make (\w+)$", TEXT, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert "STAMP := $(VENV)/.installed" in makefile
    assert "touch .venv/.installed" in TEXT
