"""Words of the code and the documents: plain terms, names that say what they hold."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RETIRED = re.compile(
    r"\b(told of|at hand|at work|stands|sa(?:ys|id|y) so|anew|comes to|goes on|nobody"
    r"|dear(?:er|est)?|mend(?:s|ed)?|whereof)\b",
    re.IGNORECASE,
)
"""Idioms that a newcomer would have to read twice."""
EMPTY_NAMES = {"found", "known", "made", "given", "wanted", "kept"}
"""Participles that do not say what a variable holds."""
NOT_A_VERB = {
    *("a", "an", "the", "this", "what", "whether", "which", "where", "why", "how", "who", "when"),
    *("of", "for", "from", "in", "by", "as", "with", "if", "it", "its", "each", "every", "all"),
    *("no", "one", "those", "these", "some"),
}
"""First words of docstrings that describe a thing where a function does something."""
TEXTS = (".md", ".yaml", ".toml", ".sh", ".sbatch", ".cff", "Makefile", "run")
OWN_WORDS = {
    "tests/test_prose.py",
    "LICENSE",
    "constraints.txt",
}
LITERATURE = re.compile(r"(^|/)(builtin|data)/|^neuroal/zoo/.*(json|model)$|ATTRIBUTION")


def tracked(*suffixes: str) -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [
        name
        for name in names
        if name.endswith(suffixes) and (ROOT / name).is_file()
        if name not in OWN_WORDS and not LITERATURE.search(name)
    ]


PYTHON = tracked(".py")
pytestmark = pytest.mark.skipif(not PYTHON, reason="not a git checkout: no list of files")


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every comment and string of a Python file."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.start[0], token.string


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def is_property(node: ast.FunctionDef) -> bool:
    names = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
    return bool(names & {"property", "cached_property", "fixture"})


@pytest.mark.parametrize("name", PYTHON)
def test_no_retired_words_in_code(name: str) -> None:
    wrong = [
        f"{name}:{line}: {match[0]}"
        for line, text in words_of(ROOT / name)
        if (match := RETIRED.search(text))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", tracked(*TEXTS))
def test_no_retired_words_in_documents(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    wrong = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for match in RETIRED.finditer(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PYTHON)
def test_variables_say_what_they_hold(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    wrong = [
        f"{name}:{node.lineno}: {bound}"
        for node in ast.walk(tree)
        for bound in [
            getattr(node, "id", None)
            if isinstance(getattr(node, "ctx", None), ast.Store)
            else None,
            node.arg if isinstance(node, ast.arg) else None,
        ]
        if bound in EMPTY_NAMES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in PYTHON if not name.startswith("tests/")])
def test_a_functions_docstring_starts_with_a_verb(name: str) -> None:
    wrong = []
    for node in functions(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        docstring = ast.get_docstring(node)
        if docstring and not is_property(node):
            first = re.split(r"[^\w]", docstring.strip("`*"), maxsplit=1)[0].lower()
            if first in NOT_A_VERB or not first:
                wrong.append(f"{name}:{node.lineno}: {docstring.splitlines()[0]}")
    assert not wrong, "\n".join(wrong)
