"""Texts are joined and cut as in the paper; every method has the same calibration windows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from neuroal.config.schema import CalibrationConfig
from neuroal.data.text import CalibrationText, Windows, evaluation_windows
from neuroal.errors import UserError
from neuroal.models.location import ZOO
from tests.rows import write_jsonl

TEXT = "the old sea was calm and the ship went on under a pale sky toward the cape"
WORDS = TEXT.split()


def calibration_windows(
    config: CalibrationConfig,
    tokenizer: Any,
    windows: int,
    seqlen: int,
    seed: int,
    root: str | None,
) -> Windows:
    return CalibrationText.find(config, root).windows(tokenizer, windows, seqlen, seed)


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return AutoTokenizer.from_pretrained(ZOO / "llama")


def sentence(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of all texts, with generated rows."""
    folder = tmp_path_factory.mktemp("data")
    texts = [sentence(i, 5 + i % 40) for i in range(200)]
    for split in ("train", "test"):
        rows = [{"text": f" {text} \n" if i % 3 else ""} for i, text in enumerate(texts)]
        write_jsonl(folder / f"wikitext-2-raw-v1/{split}.jsonl.gz", rows)
        write_jsonl(folder / f"ptb_text_only/{split}.jsonl.gz", [{"sentence": t} for t in texts])
    sample = [{"text": f"{i} {sentence(i, 8)}"} for i in range(1480)]
    write_jsonl(folder / "c4_sample/sample.jsonl.gz", sample)
    documents = [{"text": f"{i} {sentence(i, 3 + i % 90)}"} for i in range(1300)]
    write_jsonl(folder / "c4/en/c4-train.00000-of-01024.json.gz", documents)
    write_jsonl(folder / "c4/en/c4-validation.00000-of-00008.json.gz", documents)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "file", "field", "joint"),
    [
        ("wikitext2", "wikitext-2-raw-v1/test.jsonl.gz", "text", "\n\n"),
        ("ptb", "ptb_text_only/test.jsonl.gz", "sentence", " "),
    ],
)
def test_a_text_is_tokenised_as_one_string_of_its_joined_rows(
    name: str, file: str, field: str, joint: str, root: str, tokenizer: object
) -> None:
    from neuroal.data.resolve import JsonLines

    text = joint.join(row[field] for row in JsonLines(Path(root) / file))
    tokens = tokenizer(text)["input_ids"]
    windows = evaluation_windows(name, tokenizer, 32, None, root)
    assert windows.tokens.flatten().tolist() == tokens[: len(tokens) // 32 * 32]
    assert evaluation_windows(name, tokenizer, 32, 3, root).tokens.shape == (3, 32)


def test_c4_uses_its_first_documents_and_at_most_256_windows(root: str, tokenizer: object) -> None:
    from neuroal.data.resolve import JsonLines

    rows = list(JsonLines(Path(root) / "c4/en/c4-validation.00000-of-00008.json.gz"))
    tokens = tokenizer(" ".join(row["text"] for row in rows[:1100]))["input_ids"]
    windows = evaluation_windows("c4", tokenizer, 16, None, root).tokens
    assert windows.shape == (256, 16)
    assert windows.flatten().tolist() == tokens[: 256 * 16]
    rest = evaluation_windows("c4", tokenizer, 4096, None, root).tokens
    assert len(rest) == len(tokens) // 4096 < 256


def test_the_two_halves_of_c4_sample_share_no_row(root: str, tokenizer: object) -> None:
    calibration = CalibrationConfig(name="c4_sample")
    drawn = calibration_windows(calibration, tokenizer, 200, 64, 0, root)
    evaluated = evaluation_windows("c4_sample", tokenizer, 64, None, root)
    assert drawn.source == "c4_sample rows 0-739"
    assert evaluated.source == "c4_sample rows 740-1479"
    assert "739 " not in tokenizer.decode(evaluated.tokens[0])
    assert tokenizer.decode(evaluated.tokens[0]).startswith("740 ")


def test_c4_is_sampled_as_by_the_authors(root: str, tokenizer: object) -> None:
    from neuroal.data.resolve import JsonLines

    rows = list(JsonLines(Path(root) / "c4/en/c4-train.00000-of-01024.json.gz"))
    generator, expected = random.Random(5), []
    while len(expected) < 6:
        tokens = tokenizer(rows[generator.randint(0, len(rows) - 1)]["text"])["input_ids"]
        if len(tokens) > 48:
            begin = generator.randint(0, len(tokens) - 48 - 1)
            expected.append(tokens[begin : begin + 48])
    windows = calibration_windows(CalibrationConfig(name="c4"), tokenizer, 6, 48, 5, root)
    assert windows.tokens.tolist() == expected


def test_documents_shorter_than_a_window_are_an_error(root: str, tokenizer: object) -> None:
    with pytest.raises(UserError, match=r"calibration\.seqlen=500.*of 1000 documents"):
        calibration_windows(CalibrationConfig(name="c4"), tokenizer, 2, 500, 0, root)


@pytest.mark.parametrize("name", ["c4", "c4_sample", "wikitext2", "ptb", "builtin"])
def test_the_same_seed_draws_the_same_windows(name: str, root: str, tokenizer: object) -> None:
    config = CalibrationConfig(name=name)
    prints = [
        calibration_windows(config, tokenizer, 4, 32, seed, root).fingerprint for seed in (1, 1, 2)
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jsonl.gz"])
def test_own_text_is_read_in_every_format(suffix: str, tmp_path: Path, tokenizer: object) -> None:
    path = tmp_path / f"mine{suffix}"
    text = sentence(3, 300)
    if suffix == ".txt":
        path.write_text(text)
    else:
        write_jsonl(path, [{"text": text}])
    config = CalibrationConfig(name="text", path=str(path))
    windows = calibration_windows(config, tokenizer, 3, 32, 0, None)
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    candidates = tokens.unfold(0, 32, 1)
    assert all(bool((candidates == window).all(1).any()) for window in windows.tokens)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"words": "x"}\n', 'cannot be read.*field "text"'),
        (b"\n{", "row 1 is not JSON"),
        (b'["a"]\n', 'cannot be read.*field "text"'),
    ],
)
def test_own_rows_without_text_are_a_clear_error(
    content: bytes, message: str, tmp_path: Path, tokenizer: object
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    config = CalibrationConfig(name="text", path=str(path))
    with pytest.raises(UserError, match=message):
        calibration_windows(config, tokenizer, 1, 8, 0, None)
