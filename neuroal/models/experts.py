"""Fused experts of `transformers`: every slice of their three-dimensional parameters is a linear.

The parameters remain the only storage. Inside `FusedExperts.separate`, the experts run one by one
through modules that accept hooks; otherwise the model runs as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuroal.models.forwards import replaced_forward
from neuroal.models.linears import PrunableLinear

GATED, PLAIN, DOWN = "gate_up_proj", "up_proj", "down_proj"
"""Parameters of fused experts: (experts, rows, cols), or transposed."""
ALL_TOKENS = ("Llama4TextExperts",)
"""Classes whose experts receive all tokens, with zeros for those routed to other experts."""


class ExpertSlice(nn.Module):
    """One expert's slice of a parameter of fused experts, called like an ``nn.Linear``.

    It is not part of the model's module tree.
    """

    def __init__(self, experts: FusedExperts, parameter: str, index: int) -> None:
        super().__init__()
        # In a tuple, since a module as an attribute would become a child of this one.
        self._of = (experts, parameter, index)
        self.replacements: list[Tensor] = []
        """Temporary weights (rows, cols), of which the last one is used."""

    @property
    def experts(self) -> FusedExperts:
        return self._of[0]

    @property
    def weight(self) -> Tensor:
        """Weight: (rows, cols), a view of the parameter unless it is replaced."""
        if self.replacements:
            return self.replacements[-1]
        experts, parameter, index = self._of
        stored: Tensor = getattr(experts.module, parameter).data[index]
        return stored.T if experts.transposed else stored

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, which are read more often than a weight is."""
        experts, parameter, _ = self._of
        _, rows, cols = experts.module.get_parameter(parameter).shape
        return (cols, rows) if experts.transposed else (rows, cols)

    @property
    def storage(self) -> tuple[int, int]:
        """Identity of the stored weight."""
        experts, parameter, index = self._of
        return id(experts.module.get_parameter(parameter)), index

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return the output for x (tokens, cols), which comes from `positions` of the batch."""
        experts, parameter, index = self._of
        bias = getattr(experts.module, f"{parameter}_bias", None)
        return nn.functional.linear(x, self.weight, None if bias is None else bias[index])


class ExpertLinear(PrunableLinear):
    """A linear of one expert; its `module` is an `ExpertSlice`."""

    module: ExpertSlice

    @property
    def rows(self) -> int:
        return self.module.shape[0]

    @property
    def cols(self) -> int:
        return self.module.shape[1]

    @property
    def storage(self) -> tuple[int, int]:
        return self.module.storage

    @contextmanager
    def swapped(self, values: Tensor) -> Iterator[None]:
        self.module.replacements.append(values)
        try:
            yield
        finally:
            self.module.replacements.pop()

    @contextmanager
    def differentiable(self, leaf: nn.Parameter) -> Iterator[None]:
        with self.swapped(leaf):
            yield


class FusedExperts:
    """The experts of one layer.

    Attributes:
        module: experts module of `transformers`.
        transposed: whether a slice is stored as (inputs, outputs).
        slices: for each parameter, one module per expert.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self._all_tokens = type(module).__name__ in ALL_TOKENS
        self.transposed = self._all_tokens or bool(self.module.is_transposed)
        up = GATED if hasattr(module, GATED) else PLAIN
        self.slices = {
            parameter: [ExpertSlice(self, parameter, i) for i in range(len(self))]
            for parameter in (up, DOWN)
        }

    def __len__(self) -> int:
        return len(self.module.get_parameter(DOWN))

    def linears(self, block: int, name: str) -> Iterator[ExpertLinear]:
        """Yield the linears of all experts; `name` is that of the module inside the block."""
        for expert in range(len(self)):
            for parameter, slices in self.slices.items():
                yield ExpertLinear(block, f"{name}.{expert}.{parameter}", slices[expert])

    def separate(self) -> AbstractContextManager[None]:
        """Run each expert by itself inside the context, so that hooks see its inputs."""
        forward = self._forward_all if self._all_tokens else self._forward
        return replaced_forward(self.module, forward)

    def _forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Compute what the module's own forward does, up to rounding.

        Args:
            hidden_states: (tokens, hidden).
            top_k_index: experts of every token, (tokens, k); the number of experts means none.
            top_k_weights: weights of their outputs, (tokens, k).
        """
        tokens, chosen = top_k_index.shape
        expert, order = top_k_index.flatten().sort(stable=True)
        counts = torch.bincount(expert, minlength=len(self)).tolist()
        positions = order // chosen
        outputs = self._run_all(hidden_states[positions], positions, counts)
        weighted = outputs * top_k_weights.flatten()[order, None]
        by_token = weighted[order.argsort()].view(tokens, chosen, -1)
        return by_token.sum(1).to(hidden_states.dtype)

    def _forward_all(self, hidden_states: Tensor) -> Tensor:
        """Compute what the module's own forward does on (experts · tokens, hidden)."""
        reached = hidden_states.any(1)
        rows = reached.nonzero()[:, 0]
        counts = reached.view(len(self), -1).sum(1).tolist()
        positions = rows % (len(hidden_states) // len(self))
        outputs = self._run_all(hidden_states[rows], positions, counts)
        return torch.zeros_like(hidden_states).index_add(0, rows, outputs)

    def _run_all(self, x: Tensor, positions: Tensor, counts: list[int]) -> Tensor:
        """Run all experts on x (tokens, hidden), of which each gets the next of `counts` tokens."""
        parts = zip(x.split(counts), positions.split(counts), strict=True)
        return torch.cat([self._run(number, *part) for number, part in enumerate(parts)])

    def _run(self, number: int, x: Tensor, positions: Tensor) -> Tensor:
        """Run one expert on x (tokens, hidden); without tokens, none of its linears is called."""
        if number == len(self) or not len(x):
            return torch.zeros_like(x)
        up, down = (slices[number] for slices in self.slices.values())
        inner = self._activate(up(x, positions))
        output: Tensor = down(inner, positions)
        if getattr(self.module, "has_post_expert_norm", False):
            output = self.module.post_expert_norm(output)
        return output

    def _activate(self, up: Tensor) -> Tensor:
        if GATED not in self.slices:
            result: Tensor = self.module.act_fn(up)
        elif self._all_tokens:
            gate, linear = up.chunk(2, dim=-1)
            result = linear * self.module.act_fn(gate)
        else:
            result = self.module._apply_gate(up)
        return result


def is_fused(module: nn.Module) -> bool:
    """Return whether `module` holds fused experts, with the interface of `transformers`."""
    down = module._parameters.get(DOWN)
    if down is None or down.dim() != 3:
        return False
    return type(module).__name__ in ALL_TOKENS or hasattr(module, "is_transposed")


def router_names(block: nn.Module) -> set[str]:
    """Return the modules that choose the experts of a token or scale their output.

    They are beside the experts and have one output for each of them, or a single one.
    """
    names: set[str] = set()
    for parent_name, parent in block.named_modules():
        for child_name, experts in parent.named_children():
            if is_fused(experts):
                count = len(experts.get_parameter(DOWN))
            elif child_name == "experts" and isinstance(experts, nn.ModuleList):
                count = len(experts)
            else:
                continue
            names |= {
                f"{parent_name}.{name}".removeprefix(".")
                for name, module in parent.named_modules()
                if name.partition(".")[0] != child_name and _outputs(module) in (1, count)
            }
    return names


def _outputs(module: nn.Module) -> int | None:
    weight = module._parameters.get("weight")
    return None if weight is None or weight.dim() != 2 else len(weight)
