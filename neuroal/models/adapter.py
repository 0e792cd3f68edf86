"""A uniform view of decoder-only models: blocks, prunable linears and data flow.

Only ``neuroal.models`` depends on the architecture of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from neuroal.errors import UserError, nearest
from neuroal.models.families import FAMILIES, NEXT_BLOCK, Family
from neuroal.parallel.peers import ALONE, Peers
from neuroal.placement.base import placement_of

T = TypeVar("T")


@dataclass(eq=False)
class PrunableLinear:
    """A linear layer `module` that may be pruned.

    Attributes:
        block: index of the decoder block.
        name: module name inside the block, such as ``mlp.up_proj``.
    """

    block: int
    name: str
    module: nn.Linear

    @property
    def key(self) -> str:
        """Name in plans, records and masks: ``"BLOCK.NAME"``."""
        return f"{self.block}.{self.name}"

    @property
    def weight(self) -> Tensor:
        """Weight without gradient: (rows, cols) = (outputs, inputs).

        An assignment copies the values into the existing tensor.
        """
        return self.module.weight.data

    @weight.setter
    def weight(self, values: Tensor) -> None:
        self.module.weight.data.copy_(values)

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
        selection: `include` and `exclude`.
        peers: the devices that do the present stage together, each with a copy of the model.

    Raises:
        UserError: if the model has no ``ModuleList`` of blocks, if a pattern matches nothing, if no
            linear is selected, or if a selected weight matrix does not belong to an ``nn.Linear``.
    """

    def __init__(
        self, model: PreTrainedModel, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.selection = (tuple(include), tuple(exclude))
        self.blocks_name, self.blocks = find_blocks(model)
        for key, patterns in (("include", include), ("exclude", exclude)):
            _check_patterns(f"model.{key}", patterns, self.blocks_name, self.blocks)
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
        self.model_type: str = model.config.get_text_config().model_type
        self.memo: dict[str, Any] = {}
        self.peers: Peers = ALONE

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
        - a linear that feeds the consumer has another number of rows than the consumer has
          columns (grouped-query attention).

        Raises:
            UserError: if no data flow is declared for the model's type.
        """
        family = self.family
        if family is None:
            raise UserError(
                f"model: no data flow is declared for model_type '{self.model_type}'; "
                "call neuroal.models.families.register_family with the consumers of "
                f"{', '.join(linear.name for linear in self.linears[0])}"
            )
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


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name and the ``ModuleList`` of the decoder blocks.

    Of all lists with ``config.num_hidden_layers`` modules, this is the one with the most weights.
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
    name = max(lists, key=lambda key: sum(p.numel() for p in lists[key].parameters()))
    return name, lists[name]


def _linear_names(block: nn.Module) -> list[str]:
    return [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]


def _matches(index: int, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, p) or fnmatch(f"{index}.{name}", p) for p in patterns)


def _check_patterns(
    key: str, patterns: Sequence[str], blocks_name: str, blocks: nn.ModuleList
) -> None:
    """Raise `UserError` if one of `patterns` matches no module of any block."""
    modules = [
        (index, name) for index, block in enumerate(blocks) for name, _ in block.named_modules()
    ]
    for pattern in patterns:
        if not any(_matches(index, name, [pattern]) for index, name in modules if name):
            inner = pattern.removeprefix(f"{blocks_name}.")
            names = {
                option
                for index, name in modules
                if name
                for option in (name, f"{index}.{name}", f"*.{name.rpartition('.')[2]}")
            }
            close = nearest(inner, sorted(names))
            raise UserError(
                f"{key}={pattern}: matches no module of any block{close}; "
                "patterns match NAME or BLOCK.NAME, such as '*.down_proj' or '0.*'"
            )


def _find_linears(
    index: int, block: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[PrunableLinear]:
    unsupported: dict[str, str] = {}
    for name, module in block.named_modules():
        if (include and not _matches(index, name, include)) or _matches(index, name, exclude):
            continue
        if isinstance(module, nn.Linear):
            yield PrunableLinear(index, name, module)
        elif not isinstance(module, nn.Embedding):
            for parameter, weight in module.named_parameters(recurse=False):
                if weight.dim() >= 2:
                    unsupported[name] = f"'{index}.{name}.{parameter}' of {type(module).__name__}"
    if unsupported:
        raise UserError(
            f"model: only an nn.Linear can be pruned, not {', '.join(unsupported.values())}; "
            f"keep these weights dense with model.exclude=[{','.join(unsupported)}]"
        )
