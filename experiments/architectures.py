"""Write docs/architectures.md: what works for every causal language model of `transformers`.

A small random model of each architecture is replayed by block, pruned, saved and loaded again:

    python experiments/architectures.py                # all: writes the page
    python experiments/architectures.py llama mixtral  # prints some rows
"""

from __future__ import annotations

import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from small_configs import architectures, small_config
from torch import Tensor
from transformers import AutoModelForCausalLM

import neuroal
from neuroal.errors import first_line
from neuroal.execution.runner import BlockRunner
from neuroal.models.adapter import DecoderModel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
LIMIT = 60
"""Seconds for one architecture."""
MOST_WEIGHTS = 30_000_000
SCALE = 4.0
"""Factor of the weights of linears, so that their outputs are not lost beside the embeddings."""
TOLERANCE = 1e-5
"""Largest difference of hidden states, as a share of the largest one."""
INTRODUCTION = """\
# Architectures

Every causal language model that transformers {version} can build, as a small random model.

- *Replay*: largest difference of hidden states between single blocks and the whole model.
- *Linears*: number of prunable linears in the last block, including those of every expert.
- *Prune*: `yes` if Wanda zeroes exactly half of the weights.
- *Rows*: `yes` if the row step of `topup=neuroal` knows where outputs are read, else `blocks only`.
- *Saved*: `yes` if the model has the same weights and outputs after saving and loading.

{count} of {total} pass; the last column says why others do not. This page is written by
`python experiments/architectures.py`.

| model type | replay | linears | prune | rows | saved | reason |
|---|---|---:|---|---|---|---|
"""


@dataclass
class Row:
    """Results for one architecture; a dash: not reached."""

    model_type: str
    replay: str = "–"
    linears: str = "–"
    prune: str = "–"
    rows: str = "–"
    saved: str = "–"
    reason: str = ""

    @property
    def passes(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return (
            "| "
            + " | ".join(str(value).replace("|", "\\|") for value in vars(self).values())
            + " |"
        )


class TooLong(Exception):
    """An architecture took longer than `LIMIT`."""


def check(model_type: str) -> Row:
    """Return the row of an architecture; what fails ends it with a reason."""
    row = Row(model_type)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT)
    stage = "no small configuration"
    try:
        torch.manual_seed(0)
        config = small_config(model_type)
        with init_empty_weights():
            empty = AutoModelForCausalLM.from_config(config)
        if sum(parameter.numel() for parameter in empty.parameters()) > MOST_WEIGHTS:
            row.reason = f"{stage}: the model has more than {MOST_WEIGHTS:,} weights"
            return row
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        tokens = torch.randint(3, 64, (3, 24), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            model(tokens, use_cache=False)
        stage = ""
        _fill(row, model, tokens)
    except neuroal.UserError as error:
        row.reason = str(error)
    except Exception as error:  # every architecture has its own way to fail
        row.reason = f"{stage}: " * bool(stage) + f"{type(error).__name__}: {first_line(error)}"
    finally:
        signal.alarm(0)
    row.reason = row.reason[:240]
    return row


def _fill(row: Row, model: Any, tokens: Tensor) -> None:
    """Do the checks in turn; an exception leaves the later ones open."""
    decoder = DecoderModel(model)
    for linear in decoder:
        linear.weight = SCALE * linear.weight
    row.linears = str(len(decoder.linears[-1]))
    error = replay_error(decoder, tokens)
    row.replay = f"{error:.0e}"
    if not error <= TOLERANCE:
        row.reason = "blocks that run alone compute other hidden states"
        return
    result = neuroal.prune(model, tokens, topup="uniform", sparsity=0.5)
    row.prune = "yes" if abs(result.sparsity - 0.5) < 1e-4 else f"{result.sparsity:.4f}"
    row.rows = "yes" if decoder.family else "blocks only"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    pairs = zip(decoder, DecoderModel(loaded), strict=True)
    if not all(torch.equal(linear.weight, other.weight) for linear, other in pairs):
        row.reason = "the loaded model has other weights"
        return
    with torch.no_grad():
        outputs = [m(tokens, use_cache=False).logits for m in (model, loaded)]
    if not torch.allclose(*outputs, atol=1e-4):
        row.reason = "the loaded model computes other outputs"
        return
    row.saved = "yes"


@torch.no_grad()
def replay_error(decoder: DecoderModel, tokens: Tensor) -> float:
    """Return the largest difference of hidden states, as a share of the largest one of a block."""
    expected: list[Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda _m, _i, out: expected.append(out[0] if isinstance(out, tuple | list) else out)
        )
        for block in decoder.blocks
    ]
    decoder.model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    runner = BlockRunner.capture(decoder, tokens, batch=2)
    hidden, largest = runner.embedded, 0.0
    for index, reference in enumerate(expected):
        hidden = runner.run(index, hidden)
        scale = float(reference.abs().max())
        largest = max(largest, float((torch.cat(hidden) - reference).abs().max()) / scale)
    return largest


def _too_long(*_: Any) -> None:
    raise TooLong(f"more than {LIMIT} s")


def main(names: Sequence[str]) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    rows = []
    for name in names or architectures():
        rows.append(check(name))
        print(rows[-1], flush=True)
    if not names:
        count = sum(row.passes for row in rows)
        page = INTRODUCTION.format(version=transformers.__version__, count=count, total=len(rows))
        PAGE.write_text(page + "\n".join(map(str, rows)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
