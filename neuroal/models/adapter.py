"""A uniform view of decoder-only models: blocks, prunable linears and data flow.

Only ``neuroal.models`` depends on the architecture of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import takewhile
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from neuroal.errors import UserError
from neuroal.models.experts import ExpertLinear
from neuroal.models.families import FAMILIES, Family, pattern_of, patterns_of
from neuroal.models.linears import PrunableLinear as PrunableLinear
from neuroal.models.selection import Selection
from neuroal.parallel.peers import ALONE, Peers
from neuroal.placement.base import placement_of

T = TypeVar("T")


class DecoderModel:
    """A decoder-only language model, viewed as a list of blocks with prunable linears.

    Args:
        model: causal language model of `transformers` with its blocks in a ``ModuleList``.
        include: ``fnmatch`` patterns of the linears to prune, matched against ``NAME`` and
            ``BLOCK.NAME``; empty selects all.
        exclude: ``fnmatch`` patterns of linears that stay dense.

    Attributes:
        linears: prunable linears of each block.
        placement: where the weights of idle blocks are kept.
        model_type: ``config.model_type`` of the text model.
        memo: results of `once`.
        selection: `include` and `exclude`, also sent to other processes.
        peers: the devices that do the present stage together, each with a copy of the model.

    Raises:
        UserError: if the model has no ``ModuleList`` of blocks, if a pattern matches nothing, if no
            linear is selected, or if more than a tenth of the blocks' weights are selected and do
            not belong to a linear.
    """

    def __init__(
        self, model: PreTrainedModel, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.selection = Selection(tuple(include), tuple(exclude))
        self.blocks_name, self.blocks = find_blocks(model)
        self.selection.check(self.blocks_name, self.blocks)
        self.linears = self.selection.linears(self.blocks)
        self._experts = [
            dict.fromkeys(lin.module.experts for lin in block if isinstance(lin, ExpertLinear))
            for block in self.linears
        ]
        self.placement = placement_of(model)
        self.model_type: str = model.config.get_text_config().model_type
        self.memo: dict[str, Any] = {}
        self.peers: Peers = ALONE

    def of(self, model: PreTrainedModel) -> DecoderModel:
        """Return a view of another model of this architecture, with the same linears selected."""
        return DecoderModel(model, self.selection.include, self.selection.exclude)

    @property
    def family(self) -> Family | None:
        """Data flow inside a block; None if `model_type` declares none."""
        return FAMILIES.get(self.model_type)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """Return `compute()`, evaluated once per model and `key`."""
        if key not in self.memo:
            self.memo[key] = compute()
        result: T = self.memo[key]
        return result

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[PrunableLinear]:
        """Yield all prunable linears, ordered by block and, within a block, by the module tree."""
        for block in self.linears:
            yield from block

    @property
    def numel(self) -> int:
        """Number of prunable weights."""
        return sum(linear.numel for linear in self)

    @property
    def device(self) -> torch.device:
        """Device of the embeddings, where the model expects its token ids."""
        return self.placement.device

    def present(self, index: int, *, writes: bool = False) -> AbstractContextManager[None]:
        """Keep the weights of block `index` on the device inside the context.

        Access weights only inside this context or during a `walk`. Without `writes`, changes to
        them may be lost.
        """
        return self.placement.present(index, writes=writes)

    @property
    def has_experts(self) -> bool:
        """Whether linears of fused experts are pruned; their routing makes the host wait."""
        return any(self._experts)

    @contextmanager
    def separate_experts(self, index: int) -> Iterator[None]:
        """Run the pruned experts of block `index` one by one inside the context.

        Only then are the modules of their linears called, and temporary weights take effect.
        """
        with ExitStack() as stack:
            for experts in self._experts[index]:
                stack.enter_context(experts.separate())
            yield

    def walk(
        self, *, backwards: bool = False, writes: bool = False
    ) -> Iterator[tuple[int, tuple[PrunableLinear, ...]]]:
        """Yield index and linears of each block, which is `present` until the iterator advances."""
        order = range(len(self))
        for index in reversed(order) if backwards else order:
            with self.present(index, writes=writes):
                yield index, self.linears[index]

    def row_source(self, linear: PrunableLinear) -> str | None:
        """Return the name of the linear whose input scores the rows of `linear`.

        This is the first linear of the same block that reads the output of `linear`. Return None
        if the rows cannot be scored, that is, if

        - `linear` is in the last block,
        - its consumer is in the next block or is not pruned,
        - no pruned linear of the block precedes the consumer, or
        - a linear that feeds the consumer has another number of rows (or of pairs of rows, where
          `Family` declares them) than the consumer has columns (grouped-query attention).

        Raises:
            UserError: if no data flow is declared for the model's type.
        """
        family = self.family
        if family is None:
            raise UserError(
                f"model: no data flow is declared for model_type '{self.model_type}'; "
                "call neuroal.models.families.register_family with the consumers of "
                f"{patterns_of(linear.name for linear in self.linears[0])}"
            )
        consumer = family.consumer(linear.name)
        block = {other.name: other for other in self.linears[linear.block]}
        if linear.block == len(self) - 1 or consumer not in block:
            return None
        if not family.producers(consumer) & {pattern_of(name) for name in block}:
            return None
        feeders = [other for other in block.values() if family.consumer(other.name) == consumer]
        sizes_match = all(
            other.rows == family.width(other.name) * block[consumer].cols for other in feeders
        )
        return consumer if sizes_match else None


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the ``ModuleList`` of the decoder blocks.

    Of all lists with ``config.num_hidden_layers`` modules, this is the one nearest to the input
    embeddings in the module tree (not that of a vision tower, or of the parts of a block); of
    several, the one with the most weights.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and (depth is None or len(module) == depth)
    }
    if not lists:
        raise UserError(
            f"model: {type(model).__name__} has no ModuleList of {depth} decoder blocks; "
            "only models whose blocks are a ModuleList can be pruned"
        )
    embedding = _embedding_name(model).split(".")

    def nearness(name: str) -> tuple[int, int, int]:
        parts = name.split(".")
        pairs = zip(parts, embedding, strict=False)
        common = [*takewhile(lambda pair: pair[0] == pair[1], pairs)]
        return len(common), -len(parts), sum(p.numel() for p in lists[name].parameters())

    name = max(lists, key=nearness)
    return name, lists[name]


def _embedding_name(model: PreTrainedModel) -> str:
    """Return the name of the module that embeds token ids; empty if the model does not tell."""
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return ""
    return next((name for name, module in model.named_modules() if module is embedding), "")
