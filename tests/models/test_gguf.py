"""GGUF files: every tensor must be there, and the tokenizer must be the file's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from neuroal.config.schema import ModelConfig
from neuroal.errors import UserError
from neuroal.models.gguf_tokenizer import check_gguf_tokenizer, compare, read_tokenizer
from neuroal.models.load import load_model
from neuroal.models.shape import ModelShape, shape_of

pytestmark = pytest.mark.skipif(find_spec("gguf") is None, reason="needs the extra gguf")
CPU = torch.device("cpu")
MERGES = ["h e", "l l", "he ll", "hell o"]
TOKENS = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
WIDTH, INNER, BLOCKS = 32, 48, 2
SHAPES = {
    "attn_norm": (WIDTH,),
    **{f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
    "ffn_norm": (WIDTH,),
    "ffn_gate": (INNER, WIDTH),
    "ffn_up": (INNER, WIDTH),
    "ffn_down": (WIDTH, INNER),
}


def tensors() -> dict[str, np.ndarray]:
    """Return the tensors of a random LLaMA with two blocks, by their names in GGUF."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
        **{f"blk.{i}.{name}.weight": s for i in range(BLOCKS) for name, s in SHAPES.items()},
    }
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=s).astype(np.float32) for name, s in shapes.items()}


def write(path: Path, weights: Mapping[str, np.ndarray], merges: list[str] = MERGES) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * len(TOKENS))
    writer.add_token_merges(merges)
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path) -> Any:
    return load_model(ModelConfig(source="gguf", path=str(path)), CPU)


def test_a_whole_file_is_accepted(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "x.gguf", tensors()))
    assert loaded.tokenizer("hello")["input_ids"][-1] == TOKENS.index("hello")
    assert len(loaded.model.model.layers) == BLOCKS


def test_the_package_gguf_parses_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    reader, parsed = gguf.GGUFReader, []

    def counting(path: str) -> Any:
        parsed.append(path)
        return reader(path)

    monkeypatch.setattr(gguf, "GGUFReader", counting)
    path = write(tmp_path / "x.gguf", tensors())
    load(path)
    assert parsed == [str(path)]
    assert getattr(gguf, "GGUFReader") is counting  # noqa: B009 – the patch ends with the load


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blk.1.ffn_up.weight"), r"no tensor 'model\.layers\.1\.mlp\.up_proj"),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("blk.1.")],
            r"no tensor 'model\.layers\.1\..* and 8 more",
        ),
        (
            lambda t: t.update({"blk.1.ffn_up.weight": t["blk.1.ffn_up.weight"][:8].copy()}),
            r"'model\.layers\.1\.mlp\.up_proj\.weight' has shape 8×32",
        ),
        (
            lambda t: t.update({"blk.1.ffn_up.weight": t["blk.1.ffn_up.weight"].astype(np.int8)}),
            r"'blk\.1\.ffn_up\.weight' has dtype I8",
        ),
    ],
    ids=["a tensor", "a block", "a shape", "integers"],
)
def test_a_wrong_tensor_and_the_file_are_named(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    weights = tensors()
    change(weights)
    path = write(tmp_path / "x.gguf", weights)
    with pytest.raises(UserError, match=rf"model\.path={path}: .*{message}"):
        load(path)


def tampered(tokenizer: Any, change: Callable[[dict[str, Any]], object]) -> Any:
    """Return a copy of `tokenizer` with another backend."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    change(backend["model"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)))


def swap(model: dict[str, Any]) -> None:
    vocabulary = model["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (swap, "is token"),
        (lambda model: model["merges"].pop(), "3 merges instead of 4"),
        (lambda model: model["merges"].reverse(), "merge 0 is"),
    ],
    ids=["ids", "a merge", "order"],
)
def test_a_tokenizer_that_differs_from_the_file_is_named(
    change: Callable[[dict[str, Any]], object],
    difference: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "x.gguf", tensors())
    tokenizer = tampered(load(path).tokenizer, change)
    for installed, remedy in (("5.17.0", "needs transformers>="), ("5.23.0", "model=hf")):
        monkeypatch.setattr("neuroal.models.gguf_tokenizer.version", lambda _, v=installed: v)
        with pytest.raises(UserError, match=rf"transformers {installed}.*{difference}.*{remedy}"):
            check_gguf_tokenizer(tokenizer, path)


def test_derived_merges_follow_the_scores_or_the_ids() -> None:
    tokens = ["a", "b", "c", "ab", "abc"]
    stored = {"model": "llama", "tokens": tokens, "scores": [-9.0, -9.0, -9.0, -1.0, -2.0]}

    def built(merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
        vocabulary = {token: index for index, token in enumerate(tokens)}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        return PreTrainedTokenizerFast(tokenizer_object=backend)

    assert compare(built([("a", "b"), ("ab", "c")]), stored) is None
    assert compare(built([("ab", "c"), ("a", "b")]), stored) == "merges in another order"
    assert compare(built([]), stored) == "no merges"
    unigram = Tokenizer(models.Unigram([(token, -1.0) for token in tokens]))
    wrong = PreTrainedTokenizerFast(tokenizer_object=unigram)
    assert compare(wrong, stored) == "Unigram instead of BPE"


def test_the_header_is_read_as_the_package_gguf_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", tensors())
    stored = read_tokenizer(path)
    assert stored["tokens"] == TOKENS
    assert stored["merges"] == MERGES
    assert stored["token_type"] == [1] * len(TOKENS)
    assert stored["model"] == "gpt2"


def with_number(content: bytes, key: bytes, number: int) -> bytes:
    """Return a GGUF file in which the entry `key`, a 32-bit number, has another value."""
    begin = content.index(key) + len(key) + 4
    return content[:begin] + number.to_bytes(4, "little") + content[begin + 4 :]


@pytest.mark.parametrize(
    ("key", "number", "message"),
    [
        (b"llama.block_count", 0, r"wrong\.gguf has 0 blocks in 21 tensors"),
        (b"llama.block_count", 10**9, r"wrong\.gguf has 1000000000 blocks in 21 tensors"),
        (b"llama.embedding_length", 3, "wrong.gguf: cannot be loaded"),
        (b"llama.attention.head_count_kv", 0, "wrong.gguf: "),
    ],
)
def test_metadata_that_contradict_the_tensors_name_the_file(
    key: bytes, number: int, message: str, tmp_path: Path
) -> None:
    content = write(tmp_path / "whole.gguf", tensors()).read_bytes()
    (tmp_path / "wrong.gguf").write_bytes(with_number(content, key, number))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "wrong.gguf")


@pytest.mark.parametrize("size", [0, 3, 100, 4000])
def test_a_file_that_is_cut_off_is_named(size: int, tmp_path: Path) -> None:
    content = write(tmp_path / "whole.gguf", tensors()).read_bytes()
    (tmp_path / "wrong.gguf").write_bytes(content[:size])
    with pytest.raises(UserError, match=r"wrong\.gguf (is|has)"):
        load(tmp_path / "wrong.gguf")


def test_the_shape_comes_from_the_header_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tensors()
    path = write(tmp_path / "whole.gguf", weights)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[:200])
    monkeypatch.setitem(sys.modules, "gguf", None)  # cannot be imported
    parameters = float(sum(weight.size for weight in weights.values()))
    shape = shape_of(ModelConfig(source="gguf", path=str(path)))
    assert shape == ModelShape(parameters, WIDTH, INNER, BLOCKS, len(TOKENS), 64)
    assert shape_of(ModelConfig(source="gguf", path=str(damaged))) is None
    assert shape_of(ModelConfig(source="gguf", path=str(tmp_path / "none.gguf"))) is None
