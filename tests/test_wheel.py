"""The built wheel, installed in its own environment, runs from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.xdist_group("wheel")  # both tests share the environment


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command without the paths of this process; return its output."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    clean = {key: value for key, value in os.environ.items() if key not in hidden}
    finished = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the wheel; dependencies come from this environment.

    A path file makes the packages of this environment importable. The checkout, installed here in
    editable form, is not among them.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir")
    call(sys.executable, *build, folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    call(python, "-m", "pip", "install", *options, wheel, cwd=folder)
    home = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    Path(home.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


def test_the_wheel_runs_from_an_unrelated_folder(installed: Path, tmp_path: Path) -> None:
    settings = ("calibration.windows=2", "calibration.seqlen=32", "task.seqlen=32", "task.limit=2")
    methods = ("model=zoo/opt", "pruner=wanda", "topup=uniform")
    call(installed / "bin" / "neuroal", *methods, *settings, "seed=3", cwd=tmp_path)
    (path,) = (tmp_path / "runs").glob("*.json")
    record = json.loads(path.read_text())
    assert record["config"]["seed"] == 3
    assert record["sparsity"]["overall"] == pytest.approx(0.7, abs=1e-4)
    assert record["environment"]["commit"] is None  # not the checkout, which has a commit


def test_the_wheel_contains_conf_models_and_texts(installed: Path, tmp_path: Path) -> None:
    python = installed / "bin" / "python"
    code = "import neuroal; print(neuroal.__path__[0])"
    package = Path(call(python, "-c", code, cwd=tmp_path).strip())
    assert package.is_relative_to(installed)
    for name in ("conf", "data/builtin", "zoo"):
        source = ROOT / name if name == "conf" else ROOT / "neuroal" / name
        expected = {p.relative_to(source) for p in source.rglob("*") if _ships(p)}
        assert expected <= {p.relative_to(package / name) for p in (package / name).rglob("*")}


def _ships(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
