"""Windows of tokens for calibration and perplexity."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.config import CalibrationConfig
from neuroal.data.resolve import JsonLines, find_rows
from neuroal.data.sets import data_set
from neuroal.errors import UserError

BUILTIN = Path(__file__).parent / "builtin"
C4_SAMPLE_SPLIT = 740
"""Rows of c4_sample before this one are for calibration, the rest for evaluation."""
C4_DOCUMENTS, C4_WINDOWS = 1100, 256
"""Evaluation on C4: documents of the validation shard, and the windows taken of them at most."""
DRAWS = 1000
"""Documents of C4 drawn for one window before the sampler gives up."""
LONG, KEPT = 100_000, 8
"""Characters of a text worth keeping the tokens of, and how many such texts are kept."""
_ENCODED: dict[tuple[int, int], Tensor] = {}


@dataclass(frozen=True, eq=False)
class Windows:
    """Token windows with what they were made of.

    Attributes:
        tokens: (windows, seqlen) int64.
        source: data set and split.
        origin: where that was found: a folder, a file, or ``REPOSITORY@REVISION``.
        fingerprint: SHA-256 of the token ids.
    """

    tokens: Tensor
    source: str
    origin: str = ""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()

    @property
    def description(self) -> dict[str, str]:
        """What a record says of them."""
        return {"source": self.source, "origin": self.origin, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Stream:
    """One long text, the data set and split it is, and where that was found."""

    text: str
    source: str
    origin: str


SPLITS = {
    "wikitext2": {"calibration": "train", "evaluation": "test"},
    "ptb": {"calibration": "train", "evaluation": "test"},
    "c4": {"calibration": "train", "evaluation": "validation"},
    "c4_sample": {"calibration": "sample", "evaluation": "sample"},
}
"""Data set → purpose → split; what is not among them comes with the package or from a file."""


def require(name: str, purpose: str, root: str | None) -> None:
    """Make sure that the text is at hand, before anything that takes long.

    Raises:
        UserError: it is not.
    """
    if name in SPLITS:
        find_rows(name, SPLITS[name][purpose], root)


def stream(name: str, purpose: str, root: str | None) -> Stream:
    """The long text of set `name` for ``calibration`` or ``evaluation``.

    Raises:
        UserError: the data is not at hand.
    """
    if name == "builtin":
        text = "\n\n".join(row["text"] for row in JsonLines(BUILTIN / f"{purpose}.jsonl.gz"))
        return Stream(text, f"builtin {purpose} slice", "package")
    found = find_rows(name, SPLITS[name][purpose], root)
    if name == "c4_sample":
        rows, half = found.rows, C4_SAMPLE_SPLIT
        if purpose == "calibration":
            text, which = "\n".join(row["text"] for row in rows[:half]), f"0-{half - 1}"
        else:
            text, which = " ".join(row["text"] for row in rows[half:]), f"{half}-{len(rows) - 1}"
        return Stream(text, f"c4_sample rows {which}", found.origin)
    if name == "c4":
        rows = found.rows[:C4_DOCUMENTS]
        text = " ".join(row["text"] for row in rows)
        return Stream(text, f"c4 validation, {len(rows)} documents", found.origin)
    field, joint = ("sentence", " ") if name == "ptb" else ("text", "\n\n")
    text = joint.join(row[field] for row in found.rows)
    return Stream(text, f"{data_set(name).folder} {SPLITS[name][purpose]}", found.origin)


def own_text(path: Path) -> Stream:
    """A user's own file: .txt, or .jsonl or .jsonl.gz with a field ``text``, joined by blank lines.

    Raises:
        UserError: it cannot be read as such.
    """
    try:
        if path.name.endswith((".jsonl", ".gz")):
            text = "\n\n".join(row["text"] for row in JsonLines(path))
        else:
            text = path.read_text(encoding="utf-8")
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"calibration.path={path}: cannot be read ({error!r}); "
            'give UTF-8 text, or JSON lines with a field "text"'
        ) from error
    return Stream(text, path.name, str(path.absolute()))


def _encode(tokenizer: Any, text: str) -> Tensor:
    """Token ids of `text`; those of long texts are kept for the next run of the same model."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(text) < LONG:
        return torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    key = (hash(backend.to_str()), hash(text))
    if key not in _ENCODED:
        while len(_ENCODED) >= KEPT:
            _ENCODED.pop(next(iter(_ENCODED)))
        ids = tokenizer(text, verbose=False)["input_ids"]
        _ENCODED[key] = torch.tensor(ids, dtype=torch.int64)
    return _ENCODED[key]


def evaluation_windows(
    name: str, tokenizer: Any, seqlen: int, limit: int | None, root: str | None
) -> Windows:
    """Consecutive windows of one long tokenisation, remainder dropped.

    Raises:
        UserError: the text is shorter than one window.
    """
    found = stream(name, "evaluation", root)
    tokens = _encode(tokenizer, found.text)
    most = C4_WINDOWS if name == "c4" else len(tokens)
    count = min(len(tokens) // seqlen, limit or len(tokens), most)
    if count == 0:
        raise UserError(f"task.seqlen={seqlen}: {found.source} has only {len(tokens)} tokens")
    return Windows(tokens[: count * seqlen].view(count, seqlen), found.source, found.origin)


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
    found = (
        own_text(Path(config.path or ""))
        if config.name == "text"
        else stream(config.name, "calibration", root)
    )
    tokens = _encode(tokenizer, found.text)
    if len(tokens) <= seqlen:
        raise UserError(
            f"calibration.seqlen={seqlen}: {found.source} has only {len(tokens)} tokens"
        )
    offsets = [generator.randint(0, len(tokens) - seqlen - 1) for _ in range(windows)]
    chosen = torch.stack([tokens[o : o + seqlen] for o in offsets])
    return Windows(chosen, found.source, found.origin)


def _c4_windows(
    tokenizer: Any, windows: int, seqlen: int, generator: random.Random, root: str | None
) -> Windows:
    documents = find_rows("c4", "train", root)
    rows, found = documents.rows, []
    for _ in range(windows):
        for _ in range(DRAWS):
            tokens = _encode(tokenizer, rows[generator.randint(0, len(rows) - 1)]["text"])
            if len(tokens) > seqlen:
                break
        else:
            raise UserError(
                f"calibration.seqlen={seqlen}: of {DRAWS} documents of c4 none is longer; "
                "give a smaller one"
            )
        offset = generator.randint(0, len(tokens) - seqlen - 1)
        found.append(tokens[offset : offset + seqlen])
    return Windows(torch.stack(found), "c4 train, shard 0", documents.origin)
