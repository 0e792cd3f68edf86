"""Windows of tokens for calibration and perplexity."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.config import CalibrationConfig
from neuroal.errors import UserError

BUILTIN = Path(__file__).parent / "builtin"
C4_SAMPLE_SPLIT = 740
DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Windows:
    """Token windows with what they were made of.

    Attributes:
        tokens: (windows, seqlen) int64.
        source: data set and split.
        fingerprint: SHA-256 of the token ids.
    """

    tokens: Tensor
    source: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl or .jsonl.gz file."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def local_rows(name: str, split: str, root: str | None) -> list[dict[str, Any]]:
    """Rows of data set folder `name` under `root`.

    Raises:
        UserError: says where it was looked for.
    """
    if root is None:
        raise UserError(f"data.root: not set, and data set '{name}' is not built in")
    for suffix in (".jsonl.gz", ".jsonl"):
        path = Path(root) / name / f"{split}{suffix}"
        if path.is_file():
            return read_rows(path)
    raise UserError(f"data.root={root}: no {name}/{split}.jsonl.gz in it")


def stream(name: str, purpose: str, root: str | None) -> tuple[str, str]:
    """The long text of set `name` for ``calibration`` or ``evaluation``, and its source."""
    if name == "builtin":
        rows = read_rows(BUILTIN / f"{purpose}.jsonl.gz")
        return "\n\n".join(row["text"] for row in rows), f"builtin {purpose} slice"
    if name == "c4_sample":
        rows = local_rows("c4_sample", "sample", root)
        if purpose == "calibration":
            return "\n".join(r["text"] for r in rows[:C4_SAMPLE_SPLIT]), "c4_sample rows 0-739"
        return " ".join(r["text"] for r in rows[C4_SAMPLE_SPLIT:]), "c4_sample rows 740-1479"
    split = "train" if purpose == "calibration" else "test"
    if name == "wikitext2":
        rows = local_rows("wikitext-2-raw-v1", split, root)
        return "\n\n".join(row["text"] for row in rows), f"wikitext-2-raw-v1 {split}"
    if name == "ptb":
        rows = local_rows("ptb_text_only", split, root)
        return " ".join(row["sentence"] for row in rows), f"ptb_text_only {split}"
    rows = local_rows("c4", "validation", root)[:1100]
    return " ".join(row["text"] for row in rows), "c4 validation, first 1100 documents"


def _encode(tokenizer: Any, text: str) -> Tensor:
    return torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)


def default_seqlen(given: int | None, context: int, key: str) -> int:
    """The window length: `given`, or the lesser of 2048 and the model's context."""
    if given is not None and given > context:
        raise UserError(f"{key}={given}: longer than the model's context of {context}")
    return given or min(2048, context)


def evaluation_windows(
    name: str, tokenizer: Any, seqlen: int, limit: int | None, root: str | None
) -> Windows:
    """Consecutive windows of one long tokenisation, remainder dropped.

    Raises:
        UserError: the text is shorter than one window.
    """
    text, source = stream(name, "evaluation", root)
    tokens = _encode(tokenizer, text)
    count = min(len(tokens) // seqlen, limit or len(tokens), 256 if name == "c4" else len(tokens))
    if count == 0:
        raise UserError(f"task.seqlen={seqlen}: {source} has only {len(tokens)} tokens")
    return Windows(tokens[: count * seqlen].view(count, seqlen), source)


def calibration_windows(
    config: CalibrationConfig,
    tokenizer: Any,
    windows: int,
    seqlen: int,
    seed: int,
    root: str | None,
) -> Windows:
    """`windows` windows of exactly `seqlen` tokens, the same for every call with the same seed.

    C4: draw documents until one is longer than a window, then an offset. All else: one long
    stream, uniform offsets.

    Raises:
        UserError: the text is too short.
    """
    generator = random.Random(seed)
    if config.name == "c4":
        return _c4_windows(tokenizer, windows, seqlen, generator, root)
    if config.name == "text":
        path = Path(config.path or "")
        jsonl = path.suffix in (".jsonl", ".gz")
        text = "\n\n".join(r["text"] for r in read_rows(path)) if jsonl else path.read_text()
        source = str(path)
    else:
        text, source = stream(config.name, "calibration", root)
    tokens = _encode(tokenizer, text)
    if len(tokens) <= seqlen:
        raise UserError(f"calibration.seqlen={seqlen}: {source} has only {len(tokens)} tokens")
    offsets = [generator.randint(0, len(tokens) - seqlen - 1) for _ in range(windows)]
    return Windows(torch.stack([tokens[o : o + seqlen] for o in offsets]), source)


def _c4_windows(
    tokenizer: Any, windows: int, seqlen: int, generator: random.Random, root: str | None
) -> Windows:
    rows = local_rows("c4", "train", root)
    found = []
    for _ in range(windows):
        for _ in range(DRAWS):
            tokens = _encode(tokenizer, rows[generator.randint(0, len(rows) - 1)]["text"])
            if len(tokens) > seqlen:
                break
        else:
            raise UserError(
                f"calibration.seqlen={seqlen}: of {DRAWS} documents of c4 none is longer"
            )
        offset = generator.randint(0, len(tokens) - seqlen - 1)
        found.append(tokens[offset : offset + seqlen])
    return Windows(torch.stack(found), "c4 train")
