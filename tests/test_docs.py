"""The documents keep what they promise: commands and Python examples run, links lead somewhere.

Commands run with small settings, from a temporary folder, page by page and in the order of the
page. `NOT_RUN` lists the ones that are only composed or looked up, with the reason.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from neuroal.cli.compose import check, hydra_session
from neuroal.cli.declared import declared
from neuroal.cli.tables import parse
from neuroal.errors import UserError
from neuroal.models.location import ZOO
from tests.rows import write_jsonl

ROOT = Path(__file__).resolve().parents[1]
DOCS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
PAGES = [*DOCS, "slurm/README.md", *(f"results/{p.name}" for p in (ROOT / "results").glob("*.md"))]
SCRIPTS = {
    "neuroal": "neuroal.cli.main",
    "neuroal-eval": "neuroal.cli.evaluate",
    "neuroal-data": "neuroal.cli.data",
    "neuroal-grid": "neuroal.cli.grid",
    "neuroal-tables": "neuroal.cli.tables",
    "neuroal-completion": "neuroal.cli.completion",
}
SMALL = {
    "calibration.windows": "2",
    "calibration.search_windows": "2",
    "calibration.seqlen": "32",
    "task.seqlen": "32",
    "task.limit": "2",
}
RUNNING_FLAGS = ("-m", "--quiet", "--verbose", "--json")
"""Flags of commands that do a run."""
SMALL_SEARCH = {
    "fisher": ["topup.windows=2"],
    "marginal": ["topup.row_iterations=2", "topup.windows=2"],
    "neuroal": ["topup.block_candidates=[0.05,0.1]", "topup.row_candidates=[0.1]"],
}
"""Top-up → settings that shorten its search."""
NOT_RUN = {
    r"^neuroal .*model=(llama-7b|gguf|gemma3-270m)": "needs a model that is not in the repository",
    r"^neuroal(-eval)? .*(task=|boolq)": "needs the public data sets",
    r"^neuroal(-eval)? .*lambada_openai": "needs its data; tests/evaluation/test_harness.py",
    r"^neuroal .*logger=wandb": "starts W&B's process; tests/tracking runs it",
    r"^neuroal .*hydra/launcher=": "needs an extra; tests/cluster runs launchers",
    r"^neuroal -m .*(magnitude,wanda|topup.epsilon)": "many runs; test_sweeps_of_the_pages",
    r"^neuroal --config-dir=": "needs the files of the page; tests/test_extension.py runs it",
    r"^neuroal -m experiment=": "is a grid; tests/grid runs grids",
    r"^neuroal-grid (?!plan experiment=quick)": "takes seconds to hours; tests/grid runs grids",
    r"^neuroal-tables .*experiment=": "needs the records of a grid; tests/cli/test_tables.py",
    r"^neuroal-data fetch": "needs network; tests/cli/test_data.py",
    r"^slurm/submit.sh": "needs SLURM; tests/cluster runs it",
}
"""Pattern of a command → why it is only composed and checked, not run."""
LOOKED_UP = {
    "make": "builds environments; the target must exist",
    "pip": "builds environments; the extra must exist",
    "python": "needs a GPU, or packages of an extra; the script must exist",
    "git": "other program",
    "source": "other program",
    "hf": "other program, needs network",
    "for": "other program, needs network",
    "sudo": "needs root",
    "docker": "other program, needs network",
    "$EDITOR": "other program",
}
"""First word of a line that is no command of this package → why it is not run."""
PYTHON_ELSEWHERE = {
    "docs/extending.md": "is a module, which tests/test_extension.py runs",
    "docs/saving.md": "reads a saved model; tests/models/test_compressed.py",
}


def blocks(page: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in one of `languages`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^( *)```(\w+)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, language, block in fenced if language in languages]


def commands(page: str) -> list[list[str]]:
    """Return the words of every line of a page's shell blocks."""
    lines = "".join(blocks(page, "sh", "bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line.replace(".venv/bin/", ""), comments=True) for line in lines]
    return [words for words in split if words]


def reason_not_to_run(words: list[str]) -> str | None:
    command = " ".join(words)
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


@pytest.fixture
def substitutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return placeholder of the pages → what it is in `tmp_path`, the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sentence = "the old sea was calm and the ship sailed on under a pale sky toward the cape "
    (tmp_path / "text.txt").write_text(sentence * 40)
    rows = [{"text": sentence * 8, "sentence": sentence * 8}] * 5
    for name, splits in (
        ("wikitext-2-raw-v1", ["train", "test"]),
        ("ptb_text_only", ["train", "validation", "test"]),
    ):
        for split in splits:
            write_jsonl(tmp_path / "data" / name / f"{split}.jsonl.gz", rows)
    return {
        "FOLDER": str(ZOO / "opt"),
        "DATA": str(tmp_path / "data"),
        "FILE": str(tmp_path / "text.txt"),
        "RUNS": "runs",
        "PRUNED": "pruned",
    }


def with_substitutes(words: list[str], substitutes: dict[str, str]) -> list[str]:
    pattern = rf"(^|=)({'|'.join(substitutes)})(?=$|/)"
    return [re.sub(pattern, lambda match: match[1] + substitutes[match[2]], w) for w in words]


def smaller(program: str, arguments: list[str]) -> list[str]:
    """Return the arguments of ``neuroal`` or ``neuroal-eval`` with few and short windows."""
    prunes = program == "neuroal"
    if any(argument.startswith("-") and argument not in RUNNING_FLAGS for argument in arguments):
        return arguments  # prints something and stops
    others = [argument for argument in arguments if argument.partition("=")[0] not in SMALL]
    choices = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    model = [] if "model" in choices else ["model=zoo/opt"]
    search = SMALL_SEARCH.get(choices.get("topup", "neuroal"), []) if prunes else []
    return [*others, *model, *(f"{key}={value}" for key, value in SMALL.items()), *search]


def call(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a console script in this process; it must succeed."""
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(SCRIPTS[program]).main()
    assert not ended.value.code, " ".join([program, *arguments])


@cache
def check_grid(*overrides: str) -> None:
    """Check that `overrides` name a grid and narrow or extend it, as ``plan`` does first."""
    assert check(overrides)[1], "names no grid"
    with hydra_session():
        assert list(declared(overrides)[0].runs())


def compose_only(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command that is not run, as far as its program does so before any work."""
    program, *arguments = words
    if program == "neuroal-grid":
        check_grid(*(a for a in arguments[1:] if not a.startswith("--")))
    elif program == "slurm/submit.sh":
        assert (ROOT / program).stat().st_mode & 0o100
        check_grid(*arguments)
    elif program == "neuroal-data":
        names = arguments[1 : arguments.index("--root") if "--root" in arguments else None]
        call(program, ["list", *names], monkeypatch)
    elif program == "neuroal-tables":
        request = parse(arguments)
        assert request is not None
        check_grid(*request.overrides)
    elif not any(argument.startswith("--config-dir") for argument in arguments):
        plain = [a for a in arguments if not a.startswith(("hydra", "-m"))]
        check(plain, multirun="-m" in arguments)


def look_up(words: list[str]) -> None:
    """Check that what a line of another program names exists."""
    program, *arguments = words
    assert program in LOOKED_UP, f"neither run, composed nor looked up: {' '.join(words)}"
    if program == "make":
        targets = [a for a in arguments if "=" not in a and a != ".venv/.installed"]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"\[(\w+)\]", " ".join(arguments)):
            assert extra in project["optional-dependencies"]
    elif program == "python" and arguments[0] not in ("-c", "-m"):
        assert (ROOT / arguments[0]).is_file()


def follow(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, compose or look up one line of a page."""
    program, *arguments = words
    if program not in (*SCRIPTS, "slurm/submit.sh"):
        look_up(words)
    elif reason_not_to_run(words):
        compose_only(words, monkeypatch)
    elif program in ("neuroal", "neuroal-eval"):
        call(program, smaller(program, arguments), monkeypatch)
    elif program == "neuroal-grid":
        call(program, [*arguments, "topup=uniform", "sparsity=s60"], monkeypatch)
    elif program == "neuroal-tables":
        call(program, [*arguments, "--limited"], monkeypatch)
    else:
        call(program, arguments, monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_work(
    page: str, substitutes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in commands(page):
        follow(with_substitutes(words, substitutes), monkeypatch)


def _sweeps() -> Iterator[list[str]]:
    for page in DOCS:
        for words in commands(page):
            if (reason_not_to_run(words) or "").startswith("many runs"):
                yield words


@pytest.mark.slow
@pytest.mark.parametrize("words", list(_sweeps()), ids=" ".join)
def test_sweeps_of_the_pages(
    words: list[str], substitutes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(words[0], smaller(words[0], words[1:]), monkeypatch)


@pytest.mark.parametrize("page", [page for page in DOCS if blocks(page, "python")])
@pytest.mark.usefixtures("substitutes")
def test_the_python_examples_of_a_page_run(page: str) -> None:
    if page in PYTHON_ELSEWHERE:
        pytest.skip(PYTHON_ELSEWHERE[page])
    for block in blocks(page, "python"):
        example = compile(block, page, "exec", dont_inherit=True)  # of this module's own imports
        exec(example, {"__name__": "example"})


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_the_readme_is_short_and_shows_what_the_demo_prints() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    demo = (ROOT / "experiments" / "demo.py").read_text(encoding="utf-8")
    for column in ("top-up", "perplexity", "± stderr", "zeros", "allocate (s)", "prune (s)"):
        assert f'"{column}"' in demo
        assert column in text
    for page in DOCS[1:]:
        assert f"]({page})" in text


def test_every_reason_not_to_run_a_command_applies_to_one() -> None:
    every = [" ".join(words) for page in PAGES for words in commands(page)]
    assert all(any(re.search(pattern, line) for line in every) for pattern in NOT_RUN)
    programs = {line.split()[0] for line in every}
    assert set(LOOKED_UP) <= programs


def test_a_wrong_command_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[Callable[[], None]] = [
        lambda: follow(["neuroal", "topup=neural"], monkeypatch),
        lambda: follow(["neuroal-grid", "run", "experiment=zooo"], monkeypatch),
        lambda: follow(["make", "demos"], monkeypatch),
        lambda: follow(["pip", "install", ".[ggml]"], monkeypatch),
        lambda: follow(["neural"], monkeypatch),
    ]
    for attempt in wrong:
        with pytest.raises((AssertionError, UserError)):
            attempt()
    capsys.readouterr()
