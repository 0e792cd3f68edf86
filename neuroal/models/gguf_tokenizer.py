"""Check that the tokenizer of a GGUF model is the one that the file describes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version
from transformers.convert_slow_tokenizer import bytes_to_unicode

from neuroal.errors import UserError
from neuroal.placement.gguf_header import read_header

READS_TOKENIZERS = "5.23"
"""First version of `transformers` that reads the tokens, merges and BOS of all supported files."""
ALGORITHMS = {"llama": "BPE", "gemma4": "BPE", "gpt2": "BPE", "t5": "Unigram", "bert": "WordPiece"}
"""``tokenizer.ggml.model`` → algorithm of the tokenizer."""
NORMAL, BYTE = 1, 6
"""Types of the tokens that text is made of; others are special, added or unused."""
PREFIX = "tokenizer.ggml."


def check_gguf_tokenizer(tokenizer: Any, path: Path) -> None:
    """Raise `UserError` if `tokenizer` differs from the one in the GGUF file `path`."""
    difference = compare(tokenizer, read_tokenizer(path))
    if difference is None:
        return
    installed = version("transformers")
    old = Version(installed) < Version(READS_TOKENIZERS)
    remedy = (
        f"needs transformers>={READS_TOKENIZERS}"
        if old
        else "use the model's original checkpoint with model=hf"
    )
    raise UserError(
        f"model.path={path}: transformers {installed} reads another tokenizer than the file has "
        f"({difference}); {remedy}"
    )


def compare(tokenizer: Any, stored: Mapping[str, Any]) -> str | None:
    """Return the first difference between `tokenizer` and the metadata `stored`, or None.

    Args:
        tokenizer: a tokenizer of `transformers`.
        stored: metadata of a GGUF file (`read_tokenizer`).
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    algorithm = ALGORITHMS.get(stored.get("model", ""))
    if algorithm is not None and backend["type"] != algorithm:
        return f"{backend['type']} instead of {algorithm}"
    tokens = _spelled(stored)
    vocabulary = tokenizer.get_vocab()
    types = stored.get("token_type") or [NORMAL] * len(tokens)
    ids = {token: index for index, token in enumerate(tokens)}  # the last of duplicates counts
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (NORMAL, BYTE) and ids[token] == index and vocabulary.get(token) != index:
            return f"'{token}' is token {vocabulary.get(token)} instead of {index}"
    if algorithm != "BPE":
        return None
    merges = [_pair(merge) for merge in backend["merges"]]
    if "merges" in stored:
        return _compare_merges(merges, [_pair(merge) for merge in stored["merges"]])
    return _check_derived(merges, ids, stored.get("scores"))


def _spelled(stored: Mapping[str, Any]) -> list[str]:
    """Return the tokens in the spelling of `transformers`.

    Byte-level tokens are spelled in the byte alphabet, and runs of spaces as ``▁``.
    """
    if stored.get("model") != "gpt2":
        return ["▁" * len(t) if t and not t.strip(" ") else t for t in stored["tokens"]]
    spelling: dict[int, str] = bytes_to_unicode()
    alphabet = set(spelling.values())
    return [
        token if alphabet.issuperset(token) else "".join(spelling[b] for b in token.encode())
        for token in stored["tokens"]
    ]


def _pair(merge: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(merge.split(" ") if isinstance(merge, str) else merge)


def _compare_merges(merges: list[tuple[str, ...]], stored: list[tuple[str, ...]]) -> str | None:
    if len(merges) != len(stored):
        return f"{len(merges)} merges instead of {len(stored)}"
    for index, (merge, expected) in enumerate(zip(merges, stored, strict=True)):
        if merge != expected:
            return f"merge {index} is {merge} instead of {expected}"
    return None


def _check_derived(
    merges: list[tuple[str, ...]], ids: Mapping[str, int], scores: Sequence[float] | None
) -> str | None:
    """Check merges that `transformers` derives from the tokens and their scores.

    They must merge tokens of the file to tokens of the file, the best first: by descending score,
    or by ascending id.
    """
    if not merges:
        return "no merges"
    results = [ids.get("".join(merge)) for merge in merges]
    for merge, result in zip(merges, results, strict=True):
        if result is None or not all(part in ids for part in merge):
            return f"merge {merge} is not of tokens"
    order = [result for result in results if result is not None]
    by_score = scores is not None and _descends([scores[index] for index in order])
    if not by_score and not _descends([-index for index in order]):
        return "merges in another order"
    return None


def _descends(values: Sequence[float]) -> bool:
    return all(first >= second for first, second in itertools.pairwise(values))


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Return the entries ``tokenizer.ggml.NAME`` of a GGUF file, by NAME.

    Raises:
        UserError: the file has no tokens.
    """
    entries = {
        name.removeprefix(PREFIX): value
        for name, value in read_header(path).metadata.items()
        if name.startswith(PREFIX)
    }
    if not entries.get("tokens"):
        raise UserError(f"model.path={path}: the file has no tokenizer")
    return entries
