"""The API reference is made from the docstrings, without network."""

from __future__ import annotations

import importlib.util
import re
import socket
from pathlib import Path

import pytest

import neuroal

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "build_api.py"


def test_the_reference_describes_every_exported_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("pdoc", reason="needs pdoc (extra dev)")
    specification = importlib.util.spec_from_file_location("build_api", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("used the network"))
    assert script.build(tmp_path).is_file()
    page = (tmp_path / "neuroal.html").read_text()
    for name in neuroal.__all__:
        assert f'id="{name}"' in page, name
    text = re.sub(r"<[^>]+>", "", page)
    for sentence in ("Draw windows of token ids", "a model that save.format=compressed wrote"):
        assert sentence in text
    for module in script.MODULES:
        assert (tmp_path / f"{module.replace('.', '/')}.html").is_file()
    assert not [warning for warning in recwarn if "does not resolve" in str(warning.message)]
