"""Which linears of the blocks are pruned, by the patterns that a user gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain

from torch import nn
from transformers.pytorch_utils import Conv1D

from neuroal.errors import UserError, nearest
from neuroal.models.experts import ExpertLinear, FusedExperts, is_fused, router_names
from neuroal.models.families import patterns_of
from neuroal.models.linears import PrunableLinear, TransposedLinear

MOST_UNSUPPORTED = 0.1
"""Largest share of the blocks' matrices that may be of other layers than linears."""


@dataclass(frozen=True)
class Selection:
    """Patterns of linears to prune (empty: all) and to leave dense.

    ``fnmatch`` patterns, matched against ``NAME`` and ``BLOCK.NAME``. The name of a module with
    fused experts means all of their linears.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def linears(self, blocks: nn.ModuleList) -> tuple[tuple[PrunableLinear, ...], ...]:
        """Return the selected linears of each block.

        Raises:
            UserError: no linear is selected, too many selected weights are not of a linear, or
                selected linears share a weight.
        """
        self._check_supported(blocks)
        linears = tuple(
            tuple(linear for linear in linears_of(index, block) if self._selects(linear))
            for index, block in enumerate(blocks)
        )
        if not any(linears):
            options = [linear.name for linear in linears_of(0, blocks[0])]
            raise UserError(
                f"model.include={[*self.include]} model.exclude={[*self.exclude]} leave no linear "
                f"to prune; the first block has: {patterns_of(options) or 'none'}"
            )
        self._check_shared(chain.from_iterable(linears))
        return linears

    def check(self, blocks_name: str, blocks: nn.ModuleList) -> None:
        """Raise `UserError` if a pattern matches nothing in any block."""
        if not self.include and not self.exclude:
            return
        modules = [
            (index, name)
            for index, block in enumerate(blocks)
            for name in dict.fromkeys(_names(index, block))
        ]
        for key, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(_matches(index, name, [pattern]) for index, name in modules):
                    raise _no_match(key, pattern, blocks_name, modules)

    def _selects(self, linear: PrunableLinear) -> bool:
        names = [linear.name]
        if isinstance(linear, ExpertLinear):
            names.append(linear.name.rsplit(".", 2)[0])
        return self._selects_any(linear.block, names)

    def _selects_any(self, index: int, names: Sequence[str]) -> bool:
        included = not self.include or any(_matches(index, name, self.include) for name in names)
        return included and not any(_matches(index, name, self.exclude) for name in names)

    def _check_shared(self, linears: Iterable[PrunableLinear]) -> None:
        """Refuse weights that several blocks share, which would be pruned and counted twice."""
        owners: dict[tuple[int, int], PrunableLinear] = {}
        shared: dict[str, str] = {}
        for linear in linears:
            owner = owners.setdefault(linear.storage, linear)
            if owner is not linear:
                shared.setdefault(linear.name, f"'{linear.key}' has that of '{owner.key}'")
        if shared:
            excluded = ",".join(dict.fromkeys((*self.exclude, *shared)))
            raise UserError(
                f"model: {len(shared)} linears share their weights with another block's "
                f"({next(iter(shared.values()))}); keep them dense with model.exclude=[{excluded}]"
            )

    def _check_supported(self, blocks: nn.ModuleList) -> None:
        """Refuse a model if much of what is selected does not belong to a linear."""
        unsupported: dict[str, str] = {}
        weights = 0
        for index, block in enumerate(blocks):
            for name, module, parameter in _other_matrices(index, block):
                if self._selects_any(index, [name]):
                    full = f"'{index}.{name}.{parameter}' of {type(module).__name__}"
                    unsupported.setdefault(name, full)
                    weights += module.get_parameter(parameter).numel()
        total = sum(matrix_sizes(blocks))
        if weights > MOST_UNSUPPORTED * total:
            excluded = ",".join(dict.fromkeys((*self.exclude, *unsupported)))
            raise UserError(
                f"model: {weights / total:.0%} of the blocks' weights do not belong to a linear: "
                f"{', '.join(unsupported.values())}; keep them dense with "
                f"model.exclude=[{excluded}]"
            )


def linears_of(index: int, block: nn.Module) -> Iterator[PrunableLinear]:
    """Yield the linears of block `index`, in the order of its module tree, without routers."""
    routers = router_names(block)
    for name, module in block.named_modules():
        if name in routers:
            continue
        if isinstance(module, nn.Linear):
            yield PrunableLinear(index, name, module)
        elif isinstance(module, Conv1D):
            yield TransposedLinear(index, name, module)
        elif is_fused(module):
            yield from FusedExperts(module).linears(index, name)


def matrix_sizes(blocks: nn.ModuleList) -> Iterator[int]:
    """Yield the number of weights of every matrix in `blocks`, each once."""
    matrices = {id(p): p for block in blocks for p in block.parameters() if p.dim() >= 2}
    return (matrix.numel() for matrix in matrices.values())


def _names(index: int, block: nn.Module) -> Iterator[str]:
    """Yield the names of all modules and linears of a block."""
    yield from (name for name, _ in block.named_modules() if name)
    yield from (linear.name for linear in linears_of(index, block))


def _other_matrices(index: int, block: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield module name, module and parameter name of matrices that no linear views."""
    linears = {linear.name for linear in linears_of(index, block)} | router_names(block)
    for name, module in block.named_modules():
        if name in linears or isinstance(module, nn.Embedding) or is_fused(module):
            continue
        for parameter, weight in module.named_parameters(recurse=False):
            if weight.dim() >= 2:
                yield name, module, parameter


def _matches(index: int, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, p) or fnmatch(f"{index}.{name}", p) for p in patterns)


def _no_match(
    key: str, pattern: str, blocks_name: str, modules: Sequence[tuple[int, str]]
) -> UserError:
    options = {
        option
        for index, name in modules
        for option in (name, f"{index}.{name}", f"*.{name.rpartition('.')[2]}")
    }
    close = nearest(pattern.removeprefix(f"{blocks_name}."), sorted(options))
    return UserError(
        f"model.{key}={pattern}: matches no module of any block{close}; "
        "patterns match NAME or BLOCK.NAME, such as '*.down_proj' or '0.*'"
    )
