"""What each idea gives: a candidate with all of them, and with each one taken back."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor

from bench.common import Store, median_seconds, random_llama, random_tokens
from neuroal.blocks import BlockRunner
from neuroal.compiled import ENOUGH_WORK, CompiledBlocks
from neuroal.kernels import selection
from neuroal.models.adapter import DecoderModel
from neuroal.pruners.budget import Rules, allot
from neuroal.pruners.wanda import Wanda
from neuroal.statistics import StatisticsCollector
from neuroal.topups.alignment import AlignmentCriterion
from neuroal.topups.uniform import uniform_plan

BLOCKS = 4
IDEAS = {
    "all": "all ideas",
    "uncompiled": "blocks as `transformers` runs them, not compiled",
    "sorted": "a sort of all scores in place of the Triton kernel",
    "copied": "statistics of float32 copies",
    "last-linear": "dense runs to the end of the block",
    "windows": "one window at a time (uncompiled)",
    "none": "none of them",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=2048)


def main(store: Store, arguments: argparse.Namespace) -> None:
    subject = random_llama(arguments.shape, arguments.dtype, arguments.blocks or BLOCKS)
    tokens = random_tokens(arguments.windows, arguments.seqlen)
    for name in IDEAS:
        store.measure(
            f"idea-{name}-{arguments.shape}-{arguments.dtype}",
            lambda name=name: candidate(subject, tokens, name),
        )


def candidate(subject: DecoderModel, tokens: Tensor, name: str) -> dict[str, Any]:
    """Milliseconds a block of one candidate, the first block's dense run not being among them."""
    slow = name in ("uncompiled", "windows", "none")
    subject.compiled = CompiledBlocks(least_work=math.inf if slow else ENOUGH_WORK)
    batch = 1 if name in ("windows", "none") else len(tokens)
    allotments = allot(uniform_plan(subject, 0.7), subject, Rules.EXACT)
    with ExitStack() as stack:
        for taken_back in _without(name):
            stack.enter_context(taken_back())
        runner = BlockRunner.capture(subject, tokens, batch)
        criterion = AlignmentCriterion(runner, Wanda(), Rules.EXACT)
        seconds = median_seconds(lambda: criterion.measure(allotments))
    return {"what": IDEAS[name], "ms_a_block": 1e3 * seconds / len(subject), "blocks": len(subject)}


def _without(name: str) -> Iterator[Callable[[], Any]]:
    if name in ("sorted", "none"):
        yield lambda: patch.object(selection, "has_kernel", lambda _values: False)
    if name in ("copied", "none"):
        yield lambda: patch.object(StatisticsCollector, "_copies_none", lambda _self, _x: False)
    if name in ("last-linear", "none"):
        yield _to_the_end


@contextmanager
def _to_the_end() -> Iterator[None]:
    """Compute outputs even where nobody asks for them."""
    measure = BlockRunner.measure

    def whole(self: BlockRunner, *arguments: Any, outputs: bool, **others: Any) -> Any:
        return measure(self, *arguments, outputs=True, **others)

    with patch.object(BlockRunner, "measure", whole):
        yield
