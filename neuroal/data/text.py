"""Windows of tokens for calibration and perplexity."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroal.config.schema import CalibrationConfig
from neuroal.data.bos import begin_with_bos
from neuroal.data.own_text import read_own_text
from neuroal.data.resolve import DataSplit, JsonLines, find_rows
from neuroal.data.sets import BUILTIN, CALIBRATION_SETS, SETS
from neuroal.errors import UserError, nearest, shortened
from neuroal.files.digest import is_file

C4_SAMPLE_SPLIT = 740
"""Rows of c4_sample before this one are for calibration, the rest for evaluation."""
C4_DOCUMENTS, C4_WINDOWS = 1100, 256
"""Evaluation on C4: documents of the validation shard, and the maximum number of windows."""
C4_DRAWS = 1000
"""Documents of C4 drawn for one window before the sampler gives up."""
LONG_TEXT, CACHED_TEXTS = 100_000, 8
"""Minimum text length (characters) for caching its tokens, and the cache size."""
_token_cache: dict[tuple[int, int], Tensor] = {}


@dataclass(frozen=True, eq=False)
class Windows:
    """Token windows, and the source and origin of their text (`Stream`).

    Attributes:
        tokens: (windows, seqlen) int64.
    """

    tokens: Tensor
    source: str
    origin: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the token ids."""
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()

    @property
    def description(self) -> dict[str, str]:
        """Source, origin and fingerprint, for the record."""
        return {"source": self.source, "origin": self.origin, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Stream:
    """One long text and its origin.

    Attributes:
        source: data set and split.
        origin: folder, file, or ``REPOSITORY@REVISION`` that the text was read from.
    """

    text: str
    source: str
    origin: str


def require(name: str, purpose: str, root: str | None) -> None:
    """Raise `UserError` if the text of data set `name` cannot be found."""
    if name in SETS:
        find_rows(name, SETS[name].split(purpose), root)


def stream(name: str, purpose: str, root: str | None) -> Stream:
    """Return the text of a data set, or of ``builtin``, for ``calibration`` or ``evaluation``."""
    if name == "builtin":
        text = "\n\n".join(row["text"] for row in JsonLines(BUILTIN / f"{purpose}.jsonl.gz"))
        return Stream(text, f"builtin {purpose} slice", "package")
    split = SETS[name].split(purpose)
    data = find_rows(name, split, root)
    if name == "c4_sample":
        rows, half = data.rows, C4_SAMPLE_SPLIT
        if purpose == "calibration":
            text, which = "\n".join(row["text"] for row in rows[:half]), f"0-{half - 1}"
        else:
            text, which = " ".join(row["text"] for row in rows[half:]), f"{half}-{len(rows) - 1}"
        return Stream(text, f"c4_sample rows {which}", data.origin)
    if name == "c4":
        rows = data.rows[:C4_DOCUMENTS]
        text = " ".join(row["text"] for row in rows)
        return Stream(text, f"c4 validation, {len(rows)} documents", data.origin)
    field, joint = ("sentence", " ") if name == "ptb" else ("text", "\n\n")
    text = joint.join(row[field] for row in data.rows)
    return Stream(text, f"{SETS[name].folder} {split}", data.origin)


def _encode(tokenizer: Any, text: str) -> Tensor:
    """Return the token ids of `text`, cached for long texts.

    Runs of a grid that share a process and a model tokenize each text once.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(text) < LONG_TEXT:
        return torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    key = (hash(backend.to_str()), hash(text))
    if key not in _token_cache:
        while len(_token_cache) >= CACHED_TEXTS:
            _token_cache.pop(next(iter(_token_cache)))
        ids = tokenizer(text, verbose=False)["input_ids"]
        _token_cache[key] = torch.tensor(ids, dtype=torch.int64)
    return _token_cache[key]


def evaluation_windows(
    name: str,
    tokenizer: Any,
    seqlen: int,
    limit: int | None,
    root: str | None,
    bos: str = "stream",
) -> Windows:
    """Tokenize a text as a whole and cut it into consecutive windows; drop the remainder.

    There are at most `limit` windows, unless it is None (C4: at most `C4_WINDOWS`). If `bos` is
    ``window``, BOS replaces the first token of every window.
    """
    text = stream(name, "evaluation", root)
    tokens = _encode(tokenizer, text.text)
    most = C4_WINDOWS if name == "c4" else len(tokens)
    count = min(len(tokens) // seqlen, limit or len(tokens), most)
    if count == 0:
        raise UserError(
            f"task.seqlen={seqlen}: {text.source} has only {len(tokens)} tokens, and needs at "
            f"least {seqlen}"
        )
    windows = tokens[: count * seqlen].view(count, seqlen)
    if bos == "window":
        windows = begin_with_bos(windows, tokenizer, "task.bos")
    return Windows(windows, text.source, text.origin)


@dataclass(frozen=True)
class CalibrationText:
    """Source of calibration windows.

    Attributes:
        text: documents (C4), or one long stream (all other sets).
    """

    text: Stream | DataSplit

    @classmethod
    def find(cls, config: CalibrationConfig, root: str | None) -> CalibrationText:
        """Find and read the text that `config` names."""
        if config.name == "c4":
            return cls(find_rows("c4", SETS["c4"].split("calibration"), root))
        if config.name == "text":
            path = Path(config.path or "")
            return cls(Stream(read_own_text(path), path.name, str(path.absolute())))
        return cls(stream(config.name, "calibration", root))

    def windows(
        self, tokenizer: Any, windows: int, seqlen: int, seed: int, bos: str = "stream"
    ) -> Windows:
        """Draw `windows` windows of exactly `seqlen` tokens.

        C4: draw documents until one is longer than a window, then draw an offset in it. Other
        sets: draw uniform offsets in the stream. The same seed gives the same first windows for
        any number of windows. If `bos` is ``window``, BOS replaces the first token of each.

        Raises:
            UserError: the text is too short, or the tokenizer has no BOS token.
        """
        generator = random.Random(seed)
        if isinstance(self.text, DataSplit):
            drawn = _c4_windows(self.text, tokenizer, windows, seqlen, generator)
        else:
            drawn = _stream_windows(self.text, tokenizer, windows, seqlen, generator)
        if bos == "stream":
            return drawn
        return replace(drawn, tokens=begin_with_bos(drawn.tokens, tokenizer, "calibration.bos"))


def _stream_windows(
    text: Stream, tokenizer: Any, windows: int, seqlen: int, generator: random.Random
) -> Windows:
    tokens = _encode(tokenizer, text.text)
    if len(tokens) <= seqlen:
        raise UserError(
            f"calibration.seqlen={seqlen}: {text.source} has only {len(tokens)} tokens, and needs "
            f"at least {seqlen + 1}"
        )
    offsets = [generator.randint(0, len(tokens) - seqlen - 1) for _ in range(windows)]
    drawn = torch.stack([tokens[o : o + seqlen] for o in offsets])
    return Windows(drawn, text.source, text.origin)


def _c4_windows(
    documents: DataSplit, tokenizer: Any, windows: int, seqlen: int, generator: random.Random
) -> Windows:
    rows, drawn = documents.rows, []
    for _ in range(windows):
        for _ in range(C4_DRAWS):
            tokens = _encode(tokenizer, rows[generator.randint(0, len(rows) - 1)]["text"])
            if len(tokens) > seqlen:
                break
        else:
            raise UserError(
                f"calibration.seqlen={seqlen}: none of {C4_DRAWS} documents of c4 is longer; "
                "give a smaller value"
            )
        offset = generator.randint(0, len(tokens) - seqlen - 1)
        drawn.append(tokens[offset : offset + seqlen])
    return Windows(torch.stack(drawn), "c4 train, shard 0", documents.origin)


def calibration_text(source: str | Path | Sequence[str], root: str | None) -> CalibrationText:
    """Find the text that `source` of `calibration_tokens` names or holds."""
    if isinstance(source, str | Path):
        names = [name for name in CALIBRATION_SETS if name != "text"]
        if source in names:
            return CalibrationText.find(CalibrationConfig(name=str(source)), root)
        if not is_file(str(source)):
            close = nearest(str(source), names)
            raise UserError(
                f"source={shortened(source)}: neither a file nor one of {', '.join(names)}{close}; "
                "give texts as a list"
            )
        return CalibrationText.find(CalibrationConfig(name="text", path=str(source)), root)
    texts = _texts(source)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError("source: needs at least one text, and texts only")
    return CalibrationText(Stream("\n\n".join(texts), "texts in memory", "memory"))


def _texts(source: Any) -> list[Any]:
    """Return the texts of a list or of a data set's column ``text``."""
    columns = getattr(source, "column_names", None)
    if columns is not None:
        if "text" not in columns:
            listed = ", ".join(columns)
            raise UserError(f'source: the data set has no column "text"; it has {listed}')
        source = source["text"]
    try:
        return list(source)
    except TypeError as error:
        kind = type(source).__name__
        raise UserError(f"source: needs a name, a path or texts, not {kind}") from error
