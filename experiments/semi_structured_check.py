"""On a GPU: a model pruned to 2:4 gives the same output through the GPU's sparse kernels.

    python experiments/semi_structured_check.py

Every linear of a random LLaMA (width 512, bfloat16 and float16) is pruned to 2 of 4 by each
pruner, its weight is converted by `torch.sparse.to_sparse_semi_structured`, and the logits of the
converted model are compared with those of the masked one. Exit code 1 if they differ by more than
rounding; the table comes last.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import neuroal
from neuroal.models.adapter import DecoderModel

PRUNERS = ("magnitude", "wanda", "multiflow", "sparsegpt")
DTYPES = (torch.bfloat16, torch.float16)
ROUNDING = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Greatest difference allowed, as a share of the greatest logit."""
TOKENS = torch.randint(0, 512, (8, 128), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Check:
    """One pruner in one dtype: linears converted, zeros, relative difference of the logits."""

    pruner: str
    dtype: torch.dtype
    converted: int
    sparsity: float
    difference: float

    @property
    def passed(self) -> bool:
        return self.difference <= ROUNDING[self.dtype]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("semi_structured_check: needs a CUDA device of compute capability 8.0 or more")
    checks = [check(pruner, dtype) for pruner in PRUNERS for dtype in DTYPES]
    print("\n".join(lines(checks)))
    sys.exit(0 if all(found.passed for found in checks) else 1)


def check(pruner: str, dtype: torch.dtype) -> Check:
    """Prune by `pruner`, convert every linear, and compare the logits."""
    model = random_llama().to("cuda", dtype)
    found = neuroal.prune(model, TOKENS, pruner=pruner, topup="uniform", pattern=(2, 4))
    expected = logits(model)
    sparse = copy.deepcopy(model)
    converted = 0
    for linear in DecoderModel(sparse):
        weight = to_sparse_semi_structured(linear.module.weight.detach().contiguous())
        linear.module.weight = nn.Parameter(weight, requires_grad=False)
        converted += 1
    difference = (logits(sparse) - expected).abs().max() / expected.abs().max()
    return Check(pruner, dtype, converted, found.sparsity, float(difference))


def random_llama() -> PreTrainedModel:
    """Sizes that the kernels take: rows and columns are multiples of 64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model(TOKENS.cuda(), use_cache=False).logits.float()


def lines(checks: list[Check]) -> Iterator[str]:
    yield f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    yield "| pruner | dtype | linears converted | zeros | largest difference ÷ largest logit | |"
    yield "|---|---|---|---|---|---|"
    for found in checks:
        verdict = "same" if found.passed else "DIFFERS"
        yield (
            f"| {found.pruner} | {str(found.dtype).removeprefix('torch.')} | {found.converted} "
            f"| {found.sparsity:.4f} | {found.difference:.1e} | {verdict} |"
        )


if __name__ == "__main__":
    main()
