"""Methods outside the package: a YAML names a class of the user's own module by import path."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

from neuroal.cli import help, main
from neuroal.config import former_names, schema
from neuroal.config.instantiate import build
from neuroal.config.naming import method_name
from neuroal.records.store import load_record
from neuroal.topups.plan_file import PlanFile

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
    """Return file name → code block, for blocks that follow a file name in backticks."""
    text = (ROOT / document).read_text()
    blocks = re.finditer(
        r"`([\w./]+\.(?:py|yaml))`[^\n]*\n\n *```\w+\n(.*?)\n *```", text, re.DOTALL
    )
    return {block[1]: _dedent(block[2]) for block in blocks}


def _dedent(block: str) -> str:
    indent = len(block) - len(block.lstrip())
    return "\n".join(line[indent:] for line in block.splitlines()) + "\n"


def run_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``neuroal ARGUMENTS`` and check that it succeeds."""
    monkeypatch.setattr(sys, "argv", ["neuroal", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code


@pytest.mark.filterwarnings("default:.* is deprecated; use :DeprecationWarning")
def test_the_example_of_version_0_1_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = ROOT / "tests" / "data" / "extension_0_1"
    monkeypatch.setattr(sys, "path", [*sys.path, str(example)])
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    arguments = [
        f"--config-dir={example / 'my_conf'}",
        "pruner=noisy",
        "topup=early",
        f"out={tmp_path}",
        *SMALL,
    ]
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as warned:
        run_command(arguments, monkeypatch)
    former = {str(warning.message).split(" is deprecated")[0] for warning in warned}
    assert former >= {
        "neuroal.topups.schedule",
        "AllocationContext.subject",
        "AllocationContext.sparsity",
        "AllocationContext.rules",
    }
    (path,) = tmp_path.glob("*.json")
    record = load_record(path)
    assert record.sparsity["overall"] == pytest.approx(0.7, abs=1e-4)
    densities = [1 - record.sparsity["linears"][f"{block}.fc1"] for block in (0, 7)]
    assert densities[0] > densities[1]
    sys.modules.pop("my_methods")  # monkeypatch would restore it for the next test


@pytest.mark.parametrize("former", former_names.MODULES)
def test_former_modules_forward_to_the_present_ones(former: str) -> None:
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"{former} is deprecated; use neuroal"):
        module = importlib.import_module(former)
    for name, present in former_names.ATTRIBUTES.get(former, {}).items():
        assert getattr(module, name).__name__ == present


def test_former_import_paths_of_methods_resolve() -> None:
    former = "neuroal.topups.fixed.FixedPlan"
    with pytest.warns(DeprecationWarning, match="neuroal.topups.plan_file.PlanFile"):
        topup = build("topup", {"_target_": former, "path": "plan.json"})
    assert topup == PlanFile("plan.json")
    assert method_name("topup", {"_target_": former, "path": "plan.json"}).startswith("plan")


def test_the_pruner_and_topup_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {name: text for name, text in files_shown("docs/extending.md").items() if "my" in name}
    assert {Path(name).suffix for name in shown} == {".py", ".yaml"}
    for name, text in shown.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    command = (ROOT / "docs" / "extending.md").read_text()
    (line,) = re.findall(r"neuroal (--config-dir=.*my.*)\n", command)
    run_command([*line.split(), *SMALL], monkeypatch)
    (path,) = Path("runs").glob("*.json")
    record = load_record(path)
    assert record.config["pruner"]["_target_"].startswith("my_methods.")
    assert record.config["topup"]["_target_"].startswith("my_methods.")
    assert record.sparsity["overall"] == pytest.approx(0.7, abs=1e-4)
    densities = [1 - record.sparsity["linears"][f"{block}.fc1"] for block in (0, 7)]
    assert densities[0] > densities[1]


def test_the_pruner_of_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add one file each to conf, package and tests of a copy, as a contributor would."""
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
    monkeypatch.setattr(schema, "conf_dir", lambda: conf)
    assert yaml.safe_load(option)["_target_"] == "neuroal.pruners.random_weights.RandomWeights"
    assert option.splitlines()[0].removeprefix("# ") in help.help_text()
    out = f"out={tmp_path}/runs"
    run_command(["pruner=random_weights", "topup=owl", out, *SMALL], monkeypatch)
    (path,) = (tmp_path / "runs").glob("*.json")
    assert load_record(path).config["pruner"]["seed"] == 0
    namespace: dict[str, object] = {}
    exec(compile(test, "test_random_weights.py", "exec"), namespace)
    functions = [value for name, value in namespace.items() if name.startswith("test_")]
    assert functions
    for function in functions:
        assert callable(function)
        function()
