"""How many weights of a model are prunable, and what share of others they are."""

from __future__ import annotations

from dataclasses import dataclass

from neuroal.models.adapter import DecoderModel
from neuroal.models.selection import matrix_sizes

MOST_DENSE = 0.1
"""Largest share of the blocks' weights that stays dense without a warning."""


@dataclass(frozen=True)
class Totals:
    """Numbers of weights, with shared ones counted once.

    Attributes:
        prunable: of all prunable linears.
        blocks: of all matrices in the blocks, including experts, convolutions and routers.
        model: of all parameters, including embeddings, head, norms and biases.
    """

    prunable: int
    blocks: int
    model: int

    @classmethod
    def of(cls, decoder: DecoderModel) -> Totals:
        parameters = sum(parameter.numel() for parameter in decoder.model.parameters())
        return cls(decoder.numel, sum(matrix_sizes(decoder.blocks)), parameters)

    def shares(self, sparsity: float) -> dict[str, float]:
        """Return the share of pruned weights by attribute, if `sparsity` is that of `prunable`."""
        zeros = sparsity * self.prunable
        return {"prunable": sparsity, "blocks": zeros / self.blocks, "model": zeros / self.model}

    @property
    def warning(self) -> str | None:
        """One line if much of the blocks stays dense, else None."""
        dense = 1 - self.prunable / self.blocks
        if dense <= MOST_DENSE:
            return None
        return (
            f"model: {dense:.0%} of the weights in the blocks' matrices stay dense, because they "
            "are excluded or belong to no linear; the sparsity is that of the others"
        )
