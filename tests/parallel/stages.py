"""Functions that the processes of several devices run in tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from neuroal.errors import UserError
from neuroal.execution.compile import CompiledBlocks
from neuroal.models.adapter import DecoderModel
from neuroal.parallel.peers import SMALL, Peers


@torch.no_grad()
def sums_of_logits(decoder: DecoderModel, tokens: Tensor, *, progress: object) -> Tensor:
    """Return the sum of the logits of each window, from the shares of all devices."""
    share = decoder.peers.share(len(tokens))
    tokens = share.of(tokens).to(decoder.device)
    return share.joined(decoder.model(tokens).logits.float().sum((1, 2)))


def collectives(decoder: DecoderModel, *, progress: object) -> dict[str, Any]:
    """Return results of every exchange, in which device r holds numbers that begin with r."""
    peers: Peers = decoder.peers
    matrix = torch.arange(15.0).view(5, 3) + 100 * peers.rank
    long = matrix[:, :1].expand(5, SMALL // 20 + 1)
    large = torch.full((SMALL // 4 + 1,), 1.0 + peers.rank)
    rows = peers.rows(5)
    share = peers.share(2)
    copied = torch.full((3,), float(peers.rank))
    peers.receive(copied, 1)
    return {
        "sum": peers.sums([matrix, matrix.half()[0], large, matrix[1]]),
        "rows": peers.joined_rows(
            [
                *peers.row_sums([matrix]),
                large[:1].expand(rows.stop - rows.start),
                matrix[rows].half(),
            ],
            [5, 5, 5],
        ),
        "several rows": peers.joined_rows(
            peers.row_sums([matrix, matrix.half(), matrix[:, :1], long]), [5, 5, 5, 5]
        ),
        "own rows": (rows.start, rows.stop),
        "few windows": share.joined(torch.tensor([[w * 10.0] for w in share.windows])),
        "few sums": share.sums([torch.ones(2)]),
        "total": share.total(0.5),
        "copied": copied,
    }


def failing(decoder: DecoderModel, rank: int, error: Exception, *, progress: object) -> None:
    """Raise `error` on one device while the others wait for it."""
    if decoder.peers.rank == rank:
        raise error
    decoder.peers.meet()


def remember(decoder: DecoderModel, value: int) -> None:
    """Keep `value`; refuse a negative one."""
    if value < 0:
        raise UserError(f"value={value}: is negative")
    decoder.memo["remembered"] = value


def remembered(decoder: DecoderModel, *, progress: object) -> list[float]:
    """Return the value that each device has kept, 0 without one."""
    value = torch.tensor([float(decoder.memo.get("remembered", 0))])
    numbers: list[float] = decoder.peers.all_of(value).flatten().tolist()
    return numbers


def killed(decoder: DecoderModel, rank: int, *, progress: object) -> None:
    """End the process of one device while the others wait for it."""
    if decoder.peers.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    decoder.peers.meet()


def pieces(
    decoder: DecoderModel, claim: Callable[[], int], count: int, failing_piece: int
) -> Iterator[tuple[int, int]]:
    """Yield the pieces of work that this process takes, and its process number."""
    while (piece := claim()) < count:
        if piece == failing_piece:
            raise UserError(f"piece={piece}: fails")
        time.sleep(0.01)  # long enough for every process to take one
        yield piece, os.getpid()


def settings_of_process(decoder: DecoderModel, *, progress: object) -> list[int]:
    """Return the number of threads of every device."""
    threads = torch.tensor([torch.get_num_threads()])
    return [int(part) for part in decoder.peers.all_of(threads)]


def zero_first_weight(decoder: DecoderModel, *, progress: object) -> list[bool]:
    """Return whether the first weight is all zero, for every device."""
    empty = torch.tensor([not bool(next(iter(decoder)).weight.any())])
    return [bool(part) for part in decoder.peers.all_of(empty)]


def weight_address_is_shared(decoder: DecoderModel, *, progress: object) -> list[bool]:
    """Return whether the first weight is in shared memory, for every device."""
    shared = torch.tensor([next(iter(decoder)).weight.is_shared()])
    return [bool(part) for part in decoder.peers.all_of(shared)]


def endless(decoder: DecoderModel, *, progress: object) -> None:
    """Compute for ever, without meeting another device."""
    while True:
        time.sleep(0.1)


def compile_blocks_of_any_size(decoder: DecoderModel, *, progress: object) -> None:
    """Compile also the blocks of small models, on every device."""
    decoder.memo["compiled"] = CompiledBlocks(least_work=0)
