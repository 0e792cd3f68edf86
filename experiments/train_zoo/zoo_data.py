"""The zoo's data: corpus, tokenizer, token streams, n-gram baseline and the built-in texts.

    python experiments/train_zoo/zoo_data.py prepare --corpus FOLDER --cache FOLDER
    python experiments/train_zoo/zoo_data.py ngram   --corpus FOLDER --cache FOLDER
    python experiments/train_zoo/zoo_data.py slices  --corpus FOLDER

`prepare` trains the tokenizer and writes the token streams that `train_zoo.py` reads; `ngram`
prints and stores the perplexities of a unigram and a trigram model on the held-out tokens;
`slices` writes the texts shipped in `neuroal/data/builtin`. The corpus is a folder with
`train.jsonl.gz` and `heldout.jsonl.gz`, whose rows are {"text", "source"}.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ngram import baselines
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "runs" / "corpus"
CACHE = ROOT / "runs" / "zoo"
BUILTIN = ROOT / "neuroal" / "data" / "builtin"
END = "<|endoftext|>"

SHINGLE = 10  # words; ten shared words in a row are a copy, not a coincidence
OVERLAP = 0.2  # held-out documents with more of their shingles in the training text are dropped
VALID_EVERY = 50  # every 50th training document is used only to select the checkpoint
CALIBRATION_CHARS = 950_000
DOCUMENT_CHARS = 12_000

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Read rows {"text", "source"} of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def split(corpus: Path) -> dict[str, list[Row]]:
    """Return the documents for training, for choosing the checkpoint, and held out.

    Held-out documents that repeat training text (editions of one book, duplicate pages) would
    measure memorisation, so documents above `OVERLAP` are dropped.
    """
    train = read(corpus / "train.jsonl.gz")
    seen = {shingle for row in train for shingle in _shingles(row["text"])}
    heldout = []
    for row in read(corpus / "heldout.jsonl.gz"):
        shingles = list(_shingles(row["text"]))
        if sum(s in seen for s in shingles) <= OVERLAP * len(shingles):
            heldout.append(row)
    return {
        "train": [row for i, row in enumerate(train) if (i + 1) % VALID_EVERY],
        "valid": train[VALID_EVERY - 1 :: VALID_EVERY],
        "heldout": heldout,
    }


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Train a byte-level BPE of `vocab` entries; id 0 is the document separator, never added."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write the files from which `AutoTokenizer` loads a fast tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def encode(tokenizer: Tokenizer, rows: Iterable[Row]) -> NDArray[np.uint16]:
    """Return one stream: every document followed by the separator."""
    end = tokenizer.token_to_id(END)
    ids: list[int] = []
    for item in tokenizer.encode_batch([row["text"] for row in rows]):
        ids.extend([*item.ids, end])
    return np.array(ids, dtype=np.uint16)


def prepare(corpus: Path, cache: Path, vocab: int, context: int) -> None:
    """Train the tokenizer and write `train.npy`, `valid.npy`, `heldout.npy` into `cache`."""
    rows = split(corpus)
    tokenizer = train_tokenizer((row["text"] for row in rows["train"]), vocab)
    facts: dict[str, Any] = {"vocab": tokenizer.get_vocab_size(), "context": context}
    save_tokenizer(tokenizer, cache / "tokenizer", context)
    for name, part in rows.items():
        stream = encode(tokenizer, part)
        np.save(cache / f"{name}.npy", stream)
        facts[name] = {
            "documents": len(part),
            "characters": sum(len(row["text"]) for row in part),
            "tokens": len(stream),
        }
    # Written last, to mark the cache as complete.
    (cache / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


def ngram(corpus: Path, cache: Path, vocab: int, context: int) -> dict[str, float]:
    """Measure the n-gram baselines on the held-out stream and store them in `ngram.json`."""
    if not (cache / "facts.json").exists():
        prepare(corpus, cache, vocab, context)
    train = np.concatenate([np.load(cache / "train.npy"), np.load(cache / "valid.npy")])
    figures = baselines(train, np.load(cache / "heldout.npy"), vocab, context)
    (cache / "ngram.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))
    return figures


def slices(corpus: Path, out: Path, seed: int) -> None:
    """Write the shipped texts: all clean held-out documents, and a mix of training documents."""
    rows = split(corpus)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (
        ("calibration", calibration_rows(rows["train"], seed)),
        ("evaluation", rows["heldout"]),
    ):
        write_rows(out / f"{name}.jsonl.gz", part)
        sizes = Counter[str]()
        for row in part:
            sizes[row["source"]] += len(row["text"])
        print(f"{name}: {len(part)} documents, {sum(sizes.values())} characters, {dict(sizes)}")


def calibration_rows(train: list[Row], seed: int) -> list[Row]:
    """Return documents cut at `DOCUMENT_CHARS`, each source in its share of the training text."""
    shares = Counter[str]()
    for row in train:
        shares[row["source"]] += len(row["text"])
    scale = CALIBRATION_CHARS / sum(shares.values())
    quota = {source: size * scale for source, size in shares.items()}
    chosen = []
    for row in random.Random(seed).sample(train, len(train)):
        if quota[row["source"]] > 0:
            text = _cut(row["text"], DOCUMENT_CHARS)
            quota[row["source"]] -= len(text)
            chosen.append({"text": text, "source": row["source"]})
    return chosen


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write gzipped JSON lines whose bytes depend on the rows alone (no time, no file name)."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


def _shingles(text: str) -> Iterator[int]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    for i in range(len(words) - SHINGLE + 1):
        yield hash(" ".join(words[i : i + SHINGLE]))


def _cut(text: str, size: int) -> str:
    """Return `text` up to the last whole line within `size` characters."""
    if len(text) <= size:
        return text
    end = text.rfind("\n", size // 2, size)
    return text[: end if end > 0 else size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["prepare", "ngram", "slices"])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=BUILTIN)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "slices":
        slices(args.corpus, args.out, args.seed)
    else:
        args.cache.mkdir(parents=True, exist_ok=True)
        command = prepare if args.command == "prepare" else ngram
        command(args.corpus, args.cache, args.vocab, args.context)


if __name__ == "__main__":
    main()
