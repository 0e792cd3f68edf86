"""Models that cannot be pruned are refused with a one-line error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config

from neuroal.config.schema import ModelConfig
from neuroal.data import hub
from neuroal.errors import UserError
from neuroal.files.machine import MachineError
from neuroal.models.devices import resolve_device
from neuroal.models.load import load_model
from tests.small_models import tiny_llama

READERS = {
    "cannot be loaded": "neuroal.models.load.read_whole",
    "the tokenizer cannot be loaded": "neuroal.models.load.AutoTokenizer.from_pretrained",
    "cannot run on text": "transformers.LlamaForCausalLM.forward",
}
"""Step of loading → a function that it calls."""
CPU = torch.device("cpu")


def refuse(path: Path | str, message: str, source: str = "hf") -> None:
    """Assert that loading raises a `UserError` that matches `message`."""
    with pytest.raises(UserError, match=message):
        load_model(ModelConfig(source=source, path=str(path)), CPU)


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", "no such folder")
    refuse(tmp_path, r"no config\.json")
    tiny_llama().model.config.save_pretrained(tmp_path)
    refuse(tmp_path, "no weights")
    refuse(tmp_path / "x.gguf", "no such GGUF", source="gguf")
    refuse("lama", "did you mean 'llama'", source="zoo")
    refuse("no_such_wheel", "missing", source="package")


def test_encoders_are_refused(tmp_path: Path) -> None:
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=32,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    refuse(tmp_path / "bert", "bert is not a decoder-only model")
    T5Config().save_pretrained(tmp_path / "t5")
    (tmp_path / "t5" / "model.safetensors").write_bytes(b"")
    refuse(tmp_path / "t5", "t5 is not a decoder-only model")


def test_an_unreachable_hub_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.unreachable.cache_clear()
    refuse("someone/something", "hf download someone/something")


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = tiny_llama().model
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    refuse(tmp_path, "layers.1.mlp.up_proj")


def test_unknown_devices_are_refused() -> None:
    assert resolve_device("cpu") == CPU
    with pytest.raises(UserError, match="device=gpu"):
        resolve_device("gpu")
    with pytest.raises(UserError, match="device=cuda:99"):
        resolve_device("cuda:99")


def test_a_gguf_file_without_the_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr("neuroal.models.load.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'neuroal\[gguf\]'"):
        load_model(ModelConfig(source="gguf", path=str(path)), CPU)


def test_an_error_of_a_gguf_file_names_the_file(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    refuse(path, rf"model\.path={path}: cannot be loaded", source="gguf")


def fail_in(step: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step of loading raise `error`."""

    def fail(*_arguments: object, **_settings: object) -> None:
        raise error

    monkeypatch.setattr(READERS[step], fail)


@pytest.mark.parametrize("step", READERS)
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling "
            "`cusolverDnCreate(handle)`"
        ),
        MemoryError(),
    ],
)
def test_a_full_gpu_while_loading_is_not_blamed_on_the_checkpoint(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(step, error, monkeypatch)
    with pytest.raises(MachineError) as raised:
        load_model(ModelConfig(source="zoo", path="llama"), CPU)
    line = str(raised.value)
    assert "llama: memory does not suffice (" in line
    assert "offload=blocks, fewer workers per GPU" in line
    assert "config.json" not in line
    assert "checkpoint" not in line


def test_a_gpu_that_fails_while_loading_is_not_blamed_on_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = torch.AcceleratorError("CUDA error: unknown error")
    fail_in("cannot run on text", error, monkeypatch)
    with pytest.raises(torch.AcceleratorError) as raised:
        load_model(ModelConfig(source="zoo", path="llama"), CPU)
    assert raised.value is error


def test_a_model_that_cannot_run_is_blamed_on_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_in("cannot run on text", RuntimeError("sizes differ"), monkeypatch)
    with pytest.raises(UserError, match=r"cannot run on text; check its config\.json"):
        load_model(ModelConfig(source="zoo", path="llama"), CPU)
