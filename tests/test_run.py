"""The whole pipeline on a zoo model: record, saved model, saved plan and masks."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroal.cli.compose import composed
from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.evaluation.perplexity import perplexity
from neuroal.models.load import load_model
from neuroal.pruners.packed import unpack
from neuroal.records.result_line import result_line
from neuroal.records.store import load_record
from neuroal.run import run
from tests.masks import digest

SMALL = [
    "calibration.windows=4",
    "calibration.search_windows=2",
    "calibration.seqlen=64",
    "task.seqlen=64",
    "task.limit=8",
    "topup.block_candidates=[0.05,0.15]",
    "topup.row_candidates=[0.0,0.1]",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return folder and record path of one run with all outputs saved."""
    folder = tmp_path_factory.mktemp("run")
    saves = [f"save.model={folder}/model", f"save.plan={folder}/plan.json", "save.masks=true"]
    _, path = run(composed([*SMALL, *saves, f"out={folder}/runs"]))
    return folder, path


def test_the_record_documents_the_run(finished: tuple[Path, Path]) -> None:
    record = load_record(finished[1])
    assert record.config["pruner"]["_target_"].endswith("Wanda")
    assert abs(record.sparsity["overall"] - 0.7) < 1e-6
    report = record.plan["report"]
    assert len(report["criterion_block"]) == len(report["criterion_row"]) == 2
    assert report["lambda_block"] in (0.05, 0.15)
    figures = record.metrics["builtin"]
    assert 1 < figures["dense"]["value"] < figures["pruned"]["value"]
    assert {"load", "calibrate", "allocate", "prune", "evaluate"} <= record.costs["seconds"].keys()
    assert record.costs["peak_bytes"]["prune"] > 2**26
    assert record.costs["calibration_tokens"] == {"allocate": 2 * 64, "prune": 4 * 64}
    assert record.environment["packages"]["torch"] == version("torch")
    assert record.data["calibration"]["fingerprint"] != record.data["builtin"]["fingerprint"]
    assert record.config["seed"] == 0


def test_the_result_line_summarises_the_run(finished: tuple[Path, Path]) -> None:
    config, record = composed(SMALL), load_record(finished[1])
    line = result_line(config, record, finished[1])
    figures = record.metrics["builtin"]
    assert line.startswith("zoo/llama, wanda, neuroal")
    dense, pruned = figures["dense"]["value"], figures["pruned"]["value"]
    assert f"builtin {dense:.4g} → {pruned:.4g} (× {pruned / dense:.3g}) (limit 8)" in line
    share = record.sparsity["model"]
    zeros = f"0.7000 zeros (0.7000 of the blocks, {share:.4f} of the model)"
    assert 0.1 < share < 0.7
    seconds = sum(record.costs["seconds"].values())
    assert line.endswith(f"{zeros}; {seconds:.1f} s; record {finished[1]}")
    folder = finished[1].parent / "wandb" / f"offline-run-20261231_235959-{record.identity}"
    folder.mkdir(parents=True)
    assert result_line(config, record, finished[1]).endswith(f"; upload: wandb sync {folder}")


def test_a_repeated_run_gives_the_same_record_except_for_costs(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    first = load_record(finished[1])
    again, path = run(composed([*SMALL, f"out={tmp_path}"]))
    assert path.name == finished[1].name
    assert again.masks == first.masks
    assert again.metrics == first.metrics
    assert json.dumps(again.plan, sort_keys=True) == json.dumps(dict(first.plan), sort_keys=True)


def test_the_saved_model_gives_the_same_perplexity(finished: tuple[Path, Path]) -> None:
    from neuroal.data.text import evaluation_windows

    folder, path = finished
    saved = load_model(ModelConfig(source="hf", path=str(folder / "model")), torch.device("cpu"))
    windows = evaluation_windows("builtin", saved.tokenizer, 64, 8, None)
    recorded = load_record(path).metrics["builtin"]["pruned"]["value"]
    assert perplexity(saved.model, windows.tokens, batch=8).value == pytest.approx(
        recorded, rel=1e-5
    )


def test_the_saved_plan_prunes_the_same(finished: tuple[Path, Path], tmp_path: Path) -> None:
    folder, path = finished
    small = [setting for setting in SMALL if not setting.startswith("topup")]
    for plan in (folder / "plan.json", folder / "model" / "plan.json"):
        record, _ = run(composed([*small, "topup=plan", f"topup.path={plan}", f"out={tmp_path}"]))
        assert record.masks == load_record(path).masks


def test_packed_masks_have_the_recorded_digests(finished: tuple[Path, Path]) -> None:
    folder, path = finished
    record = load_record(path)
    packed = np.load(folder / "runs" / f"{record.identity}.masks.npz")
    assert set(packed.files) == record.masks.keys()
    model = load_model(ModelConfig(source="zoo", path="llama"), torch.device("cpu")).model
    shape = tuple(model.model.layers[0].self_attn.q_proj.weight.shape)
    key = "0.self_attn.q_proj"
    assert digest(unpack(packed[key], shape)) == record.masks[key]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("calibration.seqlen=1024", "longer than the model's context of 512"),
        ("task.seqlen=1024", "longer than the model's context of 512"),
        ("model.include=[nothing]", "matches no module"),
        ("model.dtype=float33", "did you mean 'float32'"),
    ],
)
def test_mistakes_leave_no_record(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(composed([*SMALL, setting, f"out={tmp_path}/runs"]))
    assert not list(tmp_path.rglob("*.json"))


def test_another_bos_adds_a_measurement_to_the_record(tmp_path: Path) -> None:
    from neuroal.data.text import evaluation_windows

    small = [*SMALL[:5], "topup=uniform", "pruner=magnitude", f"out={tmp_path}"]
    first, path = run(composed(small))
    second, same = run(composed([*small, "task.bos=window", f"save.model={tmp_path}/model"]))
    assert same == path
    assert second.masks == first.masks
    entry = second.metrics["builtin"]
    assert (first.metrics["builtin"]["bos"], entry["bos"]) == ("stream", "window")
    saved = load_model(ModelConfig(source="hf", path=f"{tmp_path}/model"), torch.device("cpu"))
    windows = evaluation_windows("builtin", saved.tokenizer, 64, 8, None, bos="window")
    expected = perplexity(saved.model, windows.tokens, batch=8).value
    assert entry["pruned"]["value"] == pytest.approx(expected, rel=1e-5)
    assert entry["dense"]["value"] != first.metrics["builtin"]["dense"]["value"]


def test_a_text_shorter_than_a_window_is_named(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Too short.")
    overrides = [*SMALL, "calibration=text", f"calibration.path={text}", f"out={tmp_path}"]
    with pytest.raises(UserError, match=r"short\.txt has only"):
        run(composed(overrides))


@pytest.mark.parametrize("family", ["llama", "mistral", "phi", "opt"])
def test_the_model_card_states_the_perplexity_of_the_weights(family: str) -> None:
    from neuroal.data.resolve import JsonLines
    from neuroal.data.text import BUILTIN
    from neuroal.models.location import ZOO

    loaded = load_model(ModelConfig(source="zoo", path=family), torch.device("cpu"))
    stated = json.loads((ZOO / family / "training.json").read_text())["heldout_ppl"]
    end = loaded.tokenizer.eos_token
    text = "".join(row["text"] + end for row in JsonLines(BUILTIN / "evaluation.jsonl.gz"))
    tokens = torch.tensor(loaded.tokenizer(text)["input_ids"])
    windows = tokens[: len(tokens) // 512 * 512].view(-1, 512)
    assert perplexity(loaded.model, windows, batch=16).value == pytest.approx(stated, rel=0.01)
