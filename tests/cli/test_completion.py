"""Completion of all console scripts, as bash computes it."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from neuroal.cli.completion import completion, completion_command, words_by_script
from neuroal.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WORDBREAKS = " \t\n\"'><=;|&(:"


def complete(line: str, folder: Path) -> list[str]:
    """Return what bash offers for a line with the cursor at its end."""
    call = (
        'COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDBREAKS=$2; _neuroal_complete "${1%% *}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    script = f"{completion('bash')}\n{call}"
    ended = subprocess.run(
        ["bash", "-c", script, "bash", line, WORDBREAKS],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert not ended.stderr
    return [match for match in ended.stdout.splitlines() if match]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("neuroal prun", {"pruner=wanda", "pruner=alps"}),
        ("neuroal model=zoo/opt pruner=m", {"magnitude", "multiflow"}),
        ("neuroal save.f", {"save.format=dense", "save.format=compressed"}),
        ("neuroal --mul", {"--multirun"}),
        ("neuroal-eval task=z", {"zero_shot"}),
        ("neuroal-grid re", {"retry"}),
        ("neuroal-grid plan experiment=pa", {"paper"}),
        ("neuroal-tables exp", {"explain", "experiment=zoo"}),
        ("neuroal-data fetch wiki", {"wikitext2"}),
        ("neuroal-completion z", {"zsh"}),
    ],
)
def test_bash_completes_commands_options_keys_and_values(
    line: str, offered: set[str], tmp_path: Path
) -> None:
    matches = complete(line, tmp_path)
    assert offered <= set(matches)
    word = line.rpartition(" ")[2].rpartition("=")[2]
    assert all(match.startswith(word) for match in matches)


def test_paths_are_completed_as_files(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    assert complete("neuroal model=hf model.path=my", tmp_path) == ["my model"]


def test_an_evaluation_completes_nothing_of_pruning(tmp_path: Path) -> None:
    assert complete("neuroal-eval prun", tmp_path) == []


def test_every_console_script_is_completed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(words_by_script()) == set(project["scripts"])


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_reads_the_script() -> None:
    text = f"autoload -Uz compinit && compinit -u\n{completion('zsh')}"
    subprocess.run(["zsh", "-fc", text], check=True)


def test_another_shell_is_one_line() -> None:
    with pytest.raises(UserError, match="fish"):
        completion_command(["fish"])
