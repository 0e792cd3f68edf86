"""One view of every decoder-only model: its blocks, its prunable linears, who reads what.

Nothing outside ``neuroal.models`` asks which architecture a model has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import nn
from transformers import PreTrainedModel

from neuroal.compiled import CallOrder, CompiledBlocks
from neuroal.errors import UserError
from neuroal.models.families import FAMILIES, NEXT_BLOCK, Family
from neuroal.placement.base import placement_of


@dataclass(frozen=True, eq=False)
class PrunableLinear:
    """One linear layer that may be pruned. Weight: (rows, cols) = (outputs, inputs)."""

    block: int
    name: str
    module: nn.Linear

    @property
    def key(self) -> str:
        """``"BLOCK.NAME"``, as plans, records and masks name it."""
        return f"{self.block}.{self.name}"

    @property
    def rows(self) -> int:
        return self.module.weight.shape[0]

    @property
    def cols(self) -> int:
        return self.module.weight.shape[1]

    @property
    def numel(self) -> int:
        return self.rows * self.cols


class DecoderModel:
    """A decoder-only language model seen as a list of blocks with prunable linears.

    Args:
        model: any causal language model of `transformers` whose blocks are a ``ModuleList``.
        include: patterns (``fnmatch``) over ``NAME`` and ``BLOCK.NAME``; empty means all.
        exclude: patterns of linears that stay dense.

    Attributes:
        model: what was given.
        blocks: its decoder blocks.
        linears: the prunable linears of each block.
        placement: where the weights are that are not at work.
        compiled: runs blocks compiled where that pays.
        probed: what `BlockRunner` has seen of the blocks' ways, which takes a pass to see.

    Raises:
        UserError: no blocks, no linears left, or weights that are no ``nn.Linear``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> None:
        self.model = model
        self._selection = (tuple(include), tuple(exclude))
        self.blocks_name, self.blocks = find_blocks(model)
        self.linears: tuple[tuple[PrunableLinear, ...], ...] = tuple(
            tuple(_find_linears(index, block, include, exclude))
            for index, block in enumerate(self.blocks)
        )
        if not any(self.linears):
            raise UserError(
                f"model.include={list(include)} model.exclude={list(exclude)} leave no linear to "
                f"prune; the first block has: {', '.join(_linear_names(self.blocks[0]))}"
            )
        self.placement = placement_of(model)
        self.probed: tuple[list[bool], list[CallOrder | None]] | None = None
        self.compiled = CompiledBlocks()
        self.model_type: str = model.config.get_text_config().model_type

    def of(self, model: PreTrainedModel) -> DecoderModel:
        """The same view of another model of this architecture."""
        return DecoderModel(model, *self._selection)

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[PrunableLinear]:
        """All prunable linears, in the order of blocks and, inside a block, of the module tree."""
        for block in self.linears:
            yield from block

    @property
    def numel(self) -> int:
        """Number of prunable weights."""
        return sum(linear.numel for linear in self)

    @property
    def device(self) -> torch.device:
        """Where token ids go in: the device of the embeddings."""
        return self.placement.device

    def present(self, index: int, *, writes: bool = False) -> AbstractContextManager[None]:
        """Have the weights of block `index` on the device inside the context.

        Whoever touches weights does it in here, or on a `walk`. What is written to them is kept
        only if it `writes`.
        """
        return self.placement.present(index, writes=writes)

    def walk(
        self, *, backwards: bool = False, writes: bool = False
    ) -> Iterator[tuple[int, tuple[PrunableLinear, ...]]]:
        """Index and linears of each block, which is `present` until the next one is asked for."""
        order = range(len(self))
        for index in reversed(order) if backwards else order:
            with self.present(index, writes=writes):
                yield index, self.linears[index]

    def row_source(self, linear: PrunableLinear) -> str | None:
        """Name of the linear of the same block at whose input the rows of `linear` are scored.

        None where there is nothing to score by: the consumer is in the next block, reads what no
        pruned linear of its own block has touched, is not pruned itself, or differs in size from
        any linear that feeds it (grouped-query attention); and in the last block.

        Raises:
            UserError: the family has no description.
        """
        family = self.family
        consumer = family.consumers.get(linear.name, NEXT_BLOCK)
        block = {other.name: other for other in self.linears[linear.block]}
        if linear.block == len(self) - 1 or consumer not in block:
            return None
        if not family.producers(consumer) & block.keys():
            return None
        feeders = [
            other for other in block.values() if family.consumers.get(other.name) == consumer
        ]
        sizes_match = all(other.rows == block[consumer].cols for other in feeders)
        return consumer if sizes_match else None

    def refines(self, linear: PrunableLinear) -> bool:
        """Whether a refinement changes `linear`; all of them where no family says otherwise."""
        family = FAMILIES.get(self.model_type)
        return family is None or family.refined is None or linear.name in family.refined

    @property
    def family(self) -> Family:
        """Description of the data flow inside a block.

        Raises:
            UserError: none is declared for this ``config.model_type``.
        """
        try:
            return FAMILIES[self.model_type]
        except KeyError:
            raise UserError(
                f"topup.step=row needs to know who reads whose output, and model_type "
                f"'{self.model_type}' does not declare it: use topup.step=block, or call "
                "neuroal.models.families.register_family with the consumers of "
                f"{', '.join(linear.name for linear in self.linears[0])}"
            ) from None


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The ``ModuleList`` of decoder blocks: as long as the config says, with the most weights."""
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
    name = max(lists, key=lambda key: sum(p.numel() for p in lists[key].parameters()))
    return name, lists[name]


def _linear_names(block: nn.Module) -> list[str]:
    return [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]


def _matches(index: int, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, p) or fnmatch(f"{index}.{name}", p) for p in patterns)


def _find_linears(
    index: int, block: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[PrunableLinear]:
    others: dict[str, str] = {}
    for name, module in block.named_modules():
        if (include and not _matches(index, name, include)) or _matches(index, name, exclude):
            continue
        if isinstance(module, nn.Linear):
            yield PrunableLinear(index, name, module)
        elif not isinstance(module, nn.Embedding):
            for parameter, weight in module.named_parameters(recurse=False):
                if weight.dim() >= 2:
                    others[name] = f"'{index}.{name}.{parameter}' of {type(module).__name__}"
    if others:
        raise UserError(
            f"model: weights that are no nn.Linear cannot be pruned: {', '.join(others.values())}; "
            f"leave them dense with model.exclude=[{','.join(others)}]"
        )
