"""Files in the current folder are not run by accident; `tests/config/test_imports.py` has more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SMALL = [
    *("topup=uniform", "calibration.windows=1", "calibration.seqlen=16", "task=none"),
    "model=zoo/opt",
]
NAMES = ("neuroal", "triton", "torch", "wandb", "sitecustomize", "hydra_plugins/trap/__init__")


def test_files_of_the_current_folder_are_not_imported_by_accident(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'trapped')!r}, 'w').close()\n")
    # A console script does not have the current folder on its path; -P does the same here.
    script = "import sys; from neuroal.cli.main import main; sys.argv[0] = 'neuroal'; main()"
    command = [sys.executable, "-P", "-c", script, *SMALL, "out=runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "trapped").exists()
