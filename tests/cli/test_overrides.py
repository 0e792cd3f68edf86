"""Overrides that Hydra's grammar misreads: the message gives the exact text to type."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from neuroal.cli.compose import check, composed, hydra_session
from neuroal.cli.overrides import parse
from neuroal.config.schema import value_at
from neuroal.errors import UserError

NAMES = ["epoch=3", "Größe", "a,b", "a[1]", "{a}", "a(b)", "it's", 'a"b', "a#b", "a b&c", "模型"]
KEYS = ["model.path", "out", "save.model", "save.plan", "data.root"]


def remedy(override: str) -> str:
    """Compose `override`, which must fail; return what its message says to write."""
    with pytest.raises(UserError) as caught:
        composed([override])
    message = str(caught.value)
    assert message.startswith(f"{override}: ")
    assert "\n" not in message
    return message.partition("write ")[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_with_special_characters_names_the_quoting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = remedy(f"out=x/{name}")
    assert typed.startswith("out='\"")
    assert composed(shlex.split(typed)).out == f"x/{name}"  # the remedy works in a shell


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_path_names_the_quoting(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch=3").mkdir()
    typed = remedy(f"{key}=./epoch=3")
    assert typed == f"""{key}='"./epoch=3"'"""
    if key != "save.plan":  # its name is that of a folder here
        assert value_at(composed(shlex.split(typed)), key) == "./epoch=3"


def test_files_of_methods_name_the_quoting() -> None:
    for group, override in (("topup=plan", "topup.path=a=b"), ("topup=marginal", "topup.start=ä")):
        with pytest.raises(UserError, match=f"write {override.partition('=')[0]}='\""):
            composed([group, override])


def test_other_keys_keep_the_words_of_the_parser() -> None:
    with pytest.raises(UserError, match="mismatched input"):
        composed(["rules=a=b"])


@pytest.mark.parametrize(
    ("override", "typed"),
    [
        ("out=2024_01", "'\"2024_01\"'"),
        ("out=1e3", "'\"1e3\"'"),
        ("save.model=true", "'\"true\"'"),
        ("out=[a]", "'\"[a]\"'"),
    ],
)
def test_a_path_that_is_read_as_another_value_is_refused(override: str, typed: str) -> None:
    assert remedy(override) == f"{override.partition('=')[0]}={typed}"


@pytest.mark.parametrize("path", ["5", "0010", "nan", "a:b", "a@b%c", "$HOME", "a b"])
def test_paths_that_are_read_as_they_are_written_are_accepted(path: str) -> None:
    assert composed([f"out={path}"]).out == path


def test_the_home_folder_is_written_as_a_variable() -> None:
    assert remedy("out=~/runs") == 'out="$HOME/runs"'


def test_an_existing_path_with_a_comma_is_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with hydra_session():
        assert parse(["out=a,b"])[0].is_sweep_override()
        (tmp_path / "a,b").mkdir()
        with pytest.raises(UserError, match=r"""is one path .*; write out='"a,b"'"""):
            parse(["out=a,b"])


@pytest.mark.parametrize(
    "group", ["model", "pruner", "topup", "refine", "sparsity", "calibration", "task", "logger"]
)
def test_a_list_of_options_is_refused(group: str) -> None:
    with pytest.raises(UserError, match="takes one option, not a list") as caught:
        check([f"{group}=[a,b]"])
    if group != "task":
        assert str(caught.value).endswith(f"write -m {group}=a,b")


def test_the_last_value_of_a_repeated_key_counts() -> None:
    assert composed(["seed=1", "seed=2"]).seed == 2
