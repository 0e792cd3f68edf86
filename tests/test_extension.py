"""Methods outside the package: a module of the user's own, named by its import path in a YAML."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from neuroal import cli, cli_compose, config, usage
from neuroal.records.store import load_record

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "model=zoo/opt",
    "calibration.windows=2",
    "calibration.search_windows=2",
    "calibration.seqlen=32",
    "task.seqlen=32",
    "task.limit=2",
]


def files_shown(document: str) -> dict[str, str]:
    """Code blocks of a document that follow a file's name in backticks, by that name."""
    text = (ROOT / document).read_text()
    blocks = re.finditer(
        r"`([\w./]+\.(?:py|yaml))`[^\n]*\n\n *```\w+\n(.*?)\n *```", text, re.DOTALL
    )
    return {found[1]: _dedent(found[2]) for found in blocks}


def _dedent(block: str) -> str:
    indent = len(block) - len(block.lstrip())
    return "\n".join(line[indent:] for line in block.splitlines()) + "\n"


def run_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``neuroal ARGUMENTS``, which must succeed."""
    monkeypatch.setattr(sys, "argv", ["neuroal", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


def test_the_readmes_own_pruner_and_topup_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {name: text for name, text in files_shown("README.md").items() if "my" in name}
    assert {Path(name).suffix for name in shown} == {".py", ".yaml"}
    for name, text in shown.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    command = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"neuroal (--config-dir=.*my.*)\n", command)
    run_command([*line.split(), *SMALL], monkeypatch)
    (path,) = Path("runs").glob("*.json")
    record = load_record(path)
    assert record.config["pruner"]["_target_"].startswith("my_methods.")
    assert record.config["topup"]["_target_"].startswith("my_methods.")
    assert record.sparsity["overall"] == pytest.approx(0.7, abs=1e-4)
    densities = [1 - record.sparsity["linears"][f"{block}.fc1"] for block in (0, 7)]
    assert densities[0] > densities[1]


def test_contributings_pruner_in_three_files_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a contributor would: conf, package and tests of a copy get one file each."""
    shown = files_shown("CONTRIBUTING.md")
    (code,) = (text for name, text in shown.items() if name.startswith("neuroal/pruners/"))
    (option,) = (text for name, text in shown.items() if name.startswith("conf/pruner/"))
    (test,) = (text for name, text in shown.items() if name.startswith("tests/pruners/"))
    conf = tmp_path / "conf"
    for path in (ROOT / "conf").rglob("*.yaml"):
        target = conf / path.relative_to(ROOT / "conf")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    (conf / "pruner" / "random_weights.yaml").write_text(option)
    folder = tmp_path / "pruners"
    folder.mkdir()
    (folder / "random_weights.py").write_text(code)
    import neuroal.pruners

    monkeypatch.setattr(neuroal.pruners, "__path__", [*neuroal.pruners.__path__, str(folder)])
    for module in (config, usage, cli, cli_compose):
        monkeypatch.setattr(module, "conf_dir", lambda: conf)
    assert yaml.safe_load(option)["_target_"] == "neuroal.pruners.random_weights.RandomWeights"
    assert option.splitlines()[0].removeprefix("# ") in usage.help_text()
    out = f"out={tmp_path}/runs"
    run_command(["pruner=random_weights", "topup=owl", out, *SMALL], monkeypatch)
    (path,) = (tmp_path / "runs").glob("*.json")
    assert load_record(path).config["pruner"]["seed"] == 0
    space: dict[str, object] = {}
    exec(compile(test, "test_random_weights.py", "exec"), space)
    tests = [found for name, found in space.items() if name.startswith("test_")]
    assert tests
    for found in tests:
        assert callable(found)
        found()
