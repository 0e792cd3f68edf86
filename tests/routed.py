"""Small random models with experts, fused or in lists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.architectures import EXPERTS, build


def routed(model_type: str, **changes: Any) -> Any:
    """Return a model with two blocks whose router tells tokens apart, with other `changes`."""
    model = build(model_type, **{**EXPERTS[model_type], "num_hidden_layers": 2, **changes})
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2, generator=generator)
    return model


class ListOfExperts(nn.ModuleList):
    """The experts of a layer as modules with linears, run one by one."""

    def __init__(self, fused: Any) -> None:
        super().__init__()
        for index in range(fused.num_experts):
            expert = nn.Module()
            for name in ("gate_up_proj", "down_proj"):
                weight = fused.get_parameter(name).data[index]
                weight = weight.T if fused.is_transposed else weight
                bias = fused.get_parameter(f"{name}_bias").data[index] if fused.has_bias else None
                linear = nn.Linear(*weight.T.shape, bias=bias is not None)
                linear.weight.data = weight.contiguous()
                if bias is not None:
                    linear.bias.data = bias
                setattr(expert, name, linear)
            self.append(expert)
        self.gate = fused._apply_gate

    def forward(self, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        total = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            token, place = (chosen == index).nonzero(as_tuple=True)
            if len(token):
                output = expert.down_proj(self.gate(expert.gate_up_proj(hidden[token])))
                total = total.index_add(
                    0, token, (output * shares[token, place, None]).to(total.dtype)
                )
        return total


def with_lists(model: Any) -> Any:
    """Return `model` after its fused experts were replaced by lists."""
    for block in model.model.layers:
        block.mlp.experts = ListOfExperts(block.mlp.experts)
    return model
