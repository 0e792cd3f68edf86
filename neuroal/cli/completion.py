"""The command ``neuroal-completion``: print shell completion for all console scripts.

The words are those of this installation: commands, flags, groups, options and keys.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from neuroal.cli import tables
from neuroal.cli.application import exit_with
from neuroal.cli.flags import HYDRA_FLAGS, OUTPUT_FLAGS, OWN_FLAGS, ArgumentParser
from neuroal.cli.help import PRUNING, options_by_group
from neuroal.cli.overrides import PATHS
from neuroal.config import schema
from neuroal.data.sets import SETS

SHELLS = ("bash", "zsh")
SCRIPT = """\
# Completion of NeuroAL's console scripts for {shell}. Made by: neuroal-completion {shell}
_neuroal_complete() {{
  local line="${{COMP_LINE:0:$COMP_POINT}}" word stem words
  word="${{line##* }}"
  case "$1" in
{cases}
  esac
  COMPREPLY=()
  case "$word" in
{files}) while IFS='' read -r stem; do COMPREPLY+=("$stem"); done < <(
      compgen -f -- "${{word#*=}}"); compopt -o filenames 2>/dev/null; return;;
  esac
  # Readline replaces what follows the last "=", if "=" separates words.
  stem=""
  case "$word" in *=*) case "$COMP_WORDBREAKS" in *=*) stem="${{word%=*}}=";; esac;; esac
  while IFS='' read -r match; do COMPREPLY+=("${{match#"$stem"}}"); done < <(
    compgen -W "$words" -- "$word")
  case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null;; esac
}}
complete -F _neuroal_complete {scripts}
"""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def main() -> NoReturn:
    """Run the console script ``neuroal-completion``."""
    exit_with(lambda: completion_command(sys.argv[1:]))


def completion_command(arguments: Sequence[str]) -> None:
    """Print the completion for the shell in `arguments`."""
    parser = ArgumentParser("neuroal-completion", description=__doc__)
    parser.add_argument("shell", choices=SHELLS)
    print(completion(parser.parse_args(arguments).shell), end="")


def completion(shell: str) -> str:
    """Return the script that defines completion for bash or zsh."""
    words = words_by_script()
    cases = [f'    {name}) words="{" ".join(of_script)}";;' for name, of_script in words.items()]
    files = "|".join(f"{path}=*" for path in PATHS)
    text = SCRIPT.format(
        shell=shell, cases="\n".join(cases), files=f"    {files}", scripts=" ".join(words)
    )
    return ZSH + text if shell == "zsh" else text


def words_by_script() -> dict[str, list[str]]:
    """Return console script → words that may follow it."""
    overrides = _overrides()
    evaluated = [word for word in overrides if _group(word) not in (*PRUNING, "experiment")]
    output = _long(OUTPUT_FLAGS)
    return {
        "neuroal": [*overrides, *_long(HYDRA_FLAGS), *_long(OWN_FLAGS)],
        "neuroal-eval": [*evaluated, *output, "--help", "--version"],
        "neuroal-data": ["fetch", "check", "list", *SETS, "--root", "--json", "--help"],
        "neuroal-grid": [
            *("plan", "status", "run", "retry", "--chunk", "--models", "--all-done", "--all"),
            *("--measure", *output, "--help", *overrides),
        ],
        "neuroal-tables": [*tables.COMMANDS, *tables.FLAGS, *overrides],
        "neuroal-completion": [*SHELLS, "--help"],
    }


def _long(flags: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the long names of flags."""
    return [name for names in flags for name in names if name.startswith("--")]


def _group(word: str) -> str:
    return word.partition("=")[0].partition(".")[0]


def _overrides() -> list[str]:
    """Return GROUP=OPTION for all options, KEY=VALUE for listed values, and KEY= for other keys."""
    options = [
        f"{group}={option}" for group, names in options_by_group().items() for option in names
    ]
    keys = []
    for key, leaf in schema.leaves():
        default = leaf.default
        values = leaf.metadata["choices"] or (("true", "false") if default in (True, False) else ())
        keys += [f"{key}={value}" for value in values] or [f"{key}="]
    return [*options, *keys]
