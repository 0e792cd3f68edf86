"""What `import neuroal` offers: names, calibration tokens, and runs as on the command line."""

from __future__ import annotations

import json
import pydoc
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

import neuroal
from neuroal.config.schema import CalibrationConfig
from neuroal.data.text import CalibrationText
from neuroal.models.location import ZOO

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [f"the {adjective} sea was calm and the ship sailed on" for adjective in ("old", "grey")]
SMALL = [
    *("model=zoo/opt", "topup=uniform", "calibration.windows=2", "calibration.seqlen=32"),
    *("task.seqlen=32", "task.limit=2"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ZOO / "llama")


def test_every_exported_name_is_there() -> None:
    expected = {
        *("prune", "evaluate", "calibration_tokens", "compose", "run_config", "load_record"),
        "load_compressed",
        *("PruningResult", "SparsityPlan", "UserError", "__version__"),
    }
    assert set(neuroal.__all__) == expected
    assert expected <= set(dir(neuroal))
    assert all(getattr(neuroal, name) for name in expected)


def test_help_describes_the_exported_names() -> None:
    text = pydoc.plain(pydoc.render_doc(neuroal))
    for name in set(neuroal.__all__) - {"__version__"}:
        assert name in text
    assert "Draw windows of token ids" in text


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prunee'"):
        neuroal.prunee  # noqa: B018


def test_the_import_is_fast_and_leaves_heavy_packages_out() -> None:
    script = (
        "import sys, time; start = time.perf_counter(); import neuroal; dir(neuroal);"
        "print(time.perf_counter() - start,"
        " sorted({'torch', 'transformers', 'pandas', 'wandb', 'lm_eval'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, loaded = output.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 1.5


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == neuroal.__version__
    assert f"## {neuroal.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_a_named_set_gives_the_windows_of_a_run(tokenizer: Any) -> None:
    tokens = neuroal.calibration_tokens("builtin", tokenizer, windows=3, seqlen=48, seed=7)
    text = CalibrationText.find(CalibrationConfig(name="builtin"), None)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, text.windows(tokenizer, 3, 48, 7).tokens)


def test_without_seqlen_windows_are_as_long_as_the_tokenizer_allows(tokenizer: Any) -> None:
    tokens = neuroal.calibration_tokens("builtin", tokenizer, windows=2)
    assert tokens.shape == (2, min(2048, tokenizer.model_max_length))


def test_a_file_a_list_and_a_data_set_of_the_same_texts_agree(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS))
    sources: list[Any] = [path, str(path), TEXTS, tuple(TEXTS), Dataset.from_dict({"text": TEXTS})]
    drawn = [
        neuroal.calibration_tokens(source, tokenizer, windows=4, seqlen=8) for source in sources
    ]
    assert all(torch.equal(tokens, drawn[0]) for tokens in drawn)


def test_data_root_is_where_sets_are_looked_for(tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wikitext-2-raw-v1"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"text": " ".join(TEXTS)}))
    root = str(tmp_path)
    tokens = neuroal.calibration_tokens("wikitext2", tokenizer, windows=2, seqlen=8, data_root=root)
    assert tokens.shape == (2, 8)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("wikitext", {}, "did you mean 'wikitext2'"),
        ("no/such/file.txt", {}, "neither a file nor one of"),
        ("text", {}, "neither a file nor one of"),
        ([], {}, "at least one text"),
        ([["a", "b"]], {}, "texts only"),
        (7, {}, "not int"),
        (Dataset.from_dict({"words": ["a"]}), {}, 'no column "text"; it has words'),
        (DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}), {}, "it has train"),
        (["short"], {"seqlen": 64}, "has only"),
        ("builtin", {"windows": 0}, "windows=0"),
        ("builtin", {"seqlen": 1}, "seqlen=1"),
    ],
)
def test_a_mistake_is_one_line(
    tokenizer: Any, source: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(neuroal.UserError, match=message) as mistake:
        neuroal.calibration_tokens(source, tokenizer, **settings)
    assert "\n" not in str(mistake.value)


def test_a_run_from_python_is_that_of_the_command_line(tmp_path: Path) -> None:
    config = neuroal.compose([*SMALL, f"out={tmp_path}"])
    assert config.model.path == "opt"
    record, path = neuroal.run_config(config)
    assert path.parent == tmp_path
    assert neuroal.load_record(path).identity == record.identity
    assert record.sparsity["overall"] == pytest.approx(0.7, abs=1e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [("topup=neural", "did you mean 'neuroal'"), ("topup=owl,dlp", "several values")],
)
def test_compose_names_a_mistake_in_one_line(override: str, message: str) -> None:
    with pytest.raises(neuroal.UserError, match=message) as mistake:
        neuroal.compose([override])
    assert "\n" not in str(mistake.value)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.mark.slow
def test_the_wheel_is_typed_and_has_the_package_s_version(wheel: zipfile.ZipFile) -> None:
    assert "neuroal/py.typed" in wheel.namelist()
    assert "neuroal/conf/config.yaml" in wheel.namelist()
    described = metadata(wheel)
    assert described["Version"] == neuroal.__version__
    assert "Typing :: Typed" in described.get_all("Classifier", [])


@pytest.mark.slow
def test_the_wheel_declares_python_and_packages_once(wheel: zipfile.ZipFile) -> None:
    described = metadata(wheel)
    bounds = set(described["Requires-Python"].split(","))
    assert bounds == {">=3.11", "<3.14"}
    assert "Python 3.11 to 3.13" in (ROOT / "README.md").read_text(encoding="utf-8")
    core = [line for line in described.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = [re.split(r"[<>=!~ ;\[]", line)[0] for line in core]
    assert len(names) == len(set(names))
    assert "gguf" not in names
    expected = {"dev", "gemma", "gguf", "joblib", "slurm", "smollm2"}
    assert set(described.get_all("Provides-Extra", [])) == expected
