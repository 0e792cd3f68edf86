"""`experiments/version_matrix.py`: both ends of the range of `pyproject.toml`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from version_matrix import PAIRS, constraints, requirement  # noqa: E402

from neuroal.models.versions import TESTED  # noqa: E402


def test_the_pairs_have_the_ends_of_the_tested_range() -> None:
    for package, ((major, oldest), (_, newest)) in TESTED.items():
        assert requirement(package, "oldest") == f"{package}=={major}.{oldest}.*"
        upper = f"{package}>={major}.{oldest},<{major}.{newest + 1}"
        assert requirement(package, "newest") == upper
    assert {pair.split("-")[0] for pair in PAIRS} == {"oldest", "newest"}


def test_only_the_packages_of_a_pair_are_free() -> None:
    text = "# versions\ntorch==2.13.0\ntorchmetrics==1\nnvidia-cublas==13\nnumpy==2.4.0\n"
    assert constraints(text) == "# versions\ntorchmetrics==1\nnumpy==2.4.0\n"
    remaining = constraints((ROOT / "constraints.txt").read_text())
    assert "pytest==" in remaining
    assert not any(name in remaining for name in ("huggingface_hub=", "tokenizers=", "torch="))
