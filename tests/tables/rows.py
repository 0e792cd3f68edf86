"""Rows of results as tables read them."""

from __future__ import annotations

from typing import Any

ROW = {
    "model": "a",
    "pruner": "wanda",
    "sparsity": "70 %",
    "task": "ptb",
    "seed": 0,
    "kind": "perplexity",
    "dense": 0.5,
    "dense_stderr": 0.01,
}


def result(competitor: str, value: float, **fields: Any) -> dict[str, Any]:
    """Return the result of a competitor in one case, which `fields` say if it is not `ROW`'s."""
    return {**ROW, "competitor": competitor, "value": value, **fields}
