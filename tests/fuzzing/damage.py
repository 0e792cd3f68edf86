"""Strategies for damaged files: of bytes, and of the values in a JSON document."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

CONTENTS = (
    *(b"", b"\0", b"\0" * 5000, b"{}", b"[]", b"null", b"0", b'""', b"{", b"\xff\xfe\x00", b"\n"),
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    *(b"[" * 100_000, b'{"a":' * 100_000, b"\x1f\x8b", b"PK\x03\x04", b"GGUF", b"\xef\xbb\xbf{}"),
    *(b"9" * 5000, b"<html></html>", b"a" * 200_000, b'{"sparsity":NaN,"ratios":{}}'),
    *(b"block;ratio\n0;0.7\n", b"block,ratio;\n0,0.7\n", b"block,ratio\n0,0.7,5\n", b"ratio\n"),
    *(b"block,ratio\n-1,0.7\n", b"block,ratio\n0,7_0\n", b"row,ratio\n0,0.5\n", b"0.7 0.7 x"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 1.5, 10**9, 10**30, 1e308, float("nan"), float("inf")),
    *("", "a", "4", "../x", "x" * 5000, [], [1], [[1]], {}, {"a": 1}, ["a", None], "é\u2028"),
)


@st.composite
def bytes_of(draw: st.DrawFn, content: bytes) -> bytes:
    """Return `content` cut, changed in one place, or replaced."""
    form, at = draw(st.integers(0, 5)), draw(st.integers(0, max(len(content) - 1, 0)))
    size = draw(st.sampled_from([1, 7, 100, 5000]))
    if form == 0:
        return content[:at]
    if form == 1:
        return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    if form == 2:
        return content[:at] + content[at + size :]
    if form == 3:
        return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    if form == 4:
        return content[:at] + content[max(at - size, 0) : at] + content[at:]
    return draw(st.sampled_from(CONTENTS))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a JSON document with each of its keys."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node))[:60]
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def json_of(draw: st.DrawFn, document: Any) -> bytes:
    """Return `document` with one value replaced, removed or added."""
    changed = copy.deepcopy(document)
    places = list(_places(changed))
    node, key = draw(st.sampled_from(places)) if places else (changed, None)
    form = draw(st.integers(0, 4))
    if key is None or form == 0:
        return json.dumps(draw(st.sampled_from(VALUES))).encode()
    if form == 1:
        del node[key]
    else:
        node[key] = draw(st.sampled_from(VALUES))
    return json.dumps(changed).encode()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return damaged forms of a file; a JSON document is also changed by its values."""
    try:
        document = json.loads(content)
    except ValueError:
        return bytes_of(content)
    return bytes_of(content) | json_of(document) | json_of(document)
