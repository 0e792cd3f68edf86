"""Training the zoo: resumption, output folders and n-gram baselines."""

from __future__ import annotations

import gzip
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "train_zoo"
sys.path.insert(0, str(FOLDER))

import ngram  # noqa: E402
import train_zoo  # noqa: E402
import zoo_data  # noqa: E402
from zoo_model import mean_loss  # noqa: E402

WORDS = [
    "the",
    "whale",
    "sea",
    "ship",
    "captain",
    "database",
    "row",
    "index",
    "query",
    "function",
    "returns",
    "value",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(1)
    for name, count in (("train", 60), ("heldout", 6)):
        rows = [
            {"text": " ".join(draw.choices(WORDS, k=120)) + ".\n", "source": "made-up"}
            for _ in range(count)
        ]
        zoo_data.write_rows(folder / f"{name}.jsonl.gz", rows)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped configuration at a size that trains in a second."""
    settings = yaml.safe_load((FOLDER / "train_zoo.yaml").read_text())
    settings |= {"vocab": 300, "context": 32}
    settings["smoke"] |= {"steps": 6, "eval_every": 2, "save_every": 2}
    small = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    for model in settings["models"].values():
        model |= small
        if "word_embed_proj_dim" in model:
            model["word_embed_proj_dim"] = 32
        if model["class"] == "LlamaConfig":
            model["num_key_value_heads"] = 4
    path = tmp_path_factory.mktemp("config") / "train_zoo.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def train(corpus: Path, config: Path, folder: Path, *more: str) -> Path:
    arguments = ["--smoke", "--corpus", str(corpus), "--config", str(config)]
    where = ["--cache", str(folder / "cache"), "--out", str(folder / "out")]
    train_zoo.main([*arguments, *where, *more])
    return folder / "out"


@pytest.mark.parametrize("family", train_zoo.FAMILIES)
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    family: str, corpus: Path, config: Path, tmp_path: Path
) -> None:
    whole = train(corpus, config, tmp_path / "a", "--models", family)
    with pytest.raises(SystemExit, match="stopped after step 3"):
        train(corpus, config, tmp_path / "b", "--models", family, "--stop-after", "3")
    resumed = train(corpus, config, tmp_path / "b", "--models", family, "--resume")

    assert not list((tmp_path / "b" / "cache").glob("*.checkpoint.pt"))
    first, second = (AutoModelForCausalLM.from_pretrained(f / family) for f in (whole, resumed))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.fixture(scope="module")
def trained(corpus: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(corpus, config, tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("family", train_zoo.FAMILIES)
def test_a_model_folder_loads_and_has_the_perplexity_of_its_card(
    trained: Path, family: str
) -> None:
    folder = trained / family
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    facts = json.loads((folder / "training.json").read_text())
    stream = torch.from_numpy(np.load(trained.parent / "cache" / "heldout.npy").astype(np.int64))
    loss = mean_loss(model, stream[: 8 * 32], 32, 4)  # as many windows as the smoke run evaluates

    assert model.config.model_type == family
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert math.exp(loss) == pytest.approx(facts["heldout_ppl"], rel=1e-4)
    assert f"**{facts['heldout_ppl']:.3f}**" in (folder / "README.md").read_text()
    assert json.loads((trained / "zoo.json").read_text())[family] == facts
    assert (folder / "loss.csv").read_text().count("\n") == 4


def test_the_tokenizer_round_trips_without_special_tokens(trained: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained / "opt")
    text = "Call me Ishmael \u2014 42\u00b0, the  whale\n"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert 0 not in ids
    assert tokenizer("<|endoftext|>").input_ids == [0]


def test_training_improves_on_the_initial_weights(trained: Path) -> None:
    for family in train_zoo.FAMILIES:
        losses = [float(line.split(",")[3]) for line in _rows(trained / family / "loss.csv")]
        assert losses[-1] < losses[0]


def test_trigram_probabilities_sum_to_one_in_every_context() -> None:
    vocab = 13
    tokens = np.random.default_rng(0).zipf(1.5, 2000) % vocab
    model = ngram.Trigram(tokens[tokens != 7], vocab)  # 7 never occurs
    token = np.arange(vocab)
    for first in range(vocab):
        for second in range(vocab):
            context = np.full(vocab, first), np.full(vocab, second)
            shares = model.probability(*context, token)
            assert shares.min() > 0
            assert shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_trigram_learns_a_pattern_that_a_unigram_cannot() -> None:
    tokens = np.tile([1, 2, 3, 1, 3, 2], 400)
    figures = ngram.baselines(tokens, tokens[:600], vocab=5, context=30)
    assert figures["unigram_ppl"] == pytest.approx(3.0, abs=0.01)
    assert figures["trigram_ppl"] < 1.1


def test_heldout_documents_that_repeat_training_text_are_dropped(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200)]
    copied, fresh = " ".join(words[:100]), " ".join(words[100:])
    zoo_data.write_rows(tmp_path / "train.jsonl.gz", [{"text": copied, "source": "a"}])
    rows = [{"text": copied.upper(), "source": "a"}, {"text": fresh, "source": "a"}]
    zoo_data.write_rows(tmp_path / "heldout.jsonl.gz", rows)
    assert zoo_data.split(tmp_path)["heldout"] == rows[1:]


def test_the_shipped_texts_are_small_and_do_not_overlap() -> None:
    texts = {}
    for name in ("calibration", "evaluation"):
        data = gzip.decompress((zoo_data.BUILTIN / f"{name}.jsonl.gz").read_bytes())
        texts[name] = [json.loads(line)["text"] for line in data.decode().splitlines()]
        assert len(data) <= 2**20
    assert not set(texts["calibration"]) & set(texts["evaluation"])


def _rows(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]
