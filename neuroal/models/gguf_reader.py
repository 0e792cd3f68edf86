"""Parsing of GGUF files by the package gguf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def headers_parsed_once() -> Iterator[None]:
    """Parse the header of each GGUF file once within the context.

    `transformers` parses it for the configuration (twice), the weights and the tokenizer. Each time
    takes seconds if the vocabulary is large, as Gemma's.
    """
    import gguf  # optional, and slow to import

    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = reader  # type: ignore[misc]
