"""The global threshold, found by counting, equals that of sorting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuroal.gradients.threshold import lowest_of_model
from neuroal.kernels.score_terms import ScoreTerms
from neuroal.models.adapter import PrunableLinear
from neuroal.parallel.peers import Peers
from neuroal.sparsity.budget import total_zeros
from tests.small_models import tiny_llama

SMALL = tiny_llama(num_hidden_layers=2, hidden_size=8, intermediate_size=12, num_attention_heads=2)


def sorted_masks(scores: dict[str, Tensor], zeros: int) -> dict[str, Tensor]:
    flat = torch.cat([part.flatten() for part in scores.values()])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.sort(stable=True).indices[:zeros]] = True
    parts = mask.split([part.numel() for part in scores.values()])
    return {key: part.view(scores[key].shape) for key, part in zip(scores, parts, strict=True)}


@given(st.integers(0, 2**31), st.sampled_from([2, 50, 10**6]), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_counting_gives_the_mask_of_sorting_with_ties_in_order(
    seed: int, values: int, share: float
) -> None:
    decoder = SMALL
    generator = torch.Generator().manual_seed(seed)
    scores: dict[str, Tensor] = {}
    for linear in decoder:
        drawn = torch.randint(-values, values, linear.weight.shape, generator=generator).float()
        exponents = torch.randint(-40, 40, linear.weight.shape, generator=generator)
        linear.weight = drawn if values == 50 else drawn * 2.0**exponents
        scores[linear.key] = linear.weight.abs()
    zeros = total_zeros(share, decoder.numel)

    def terms_of(linear: PrunableLinear) -> ScoreTerms:
        return ScoreTerms(rows=torch.ones(linear.rows), cols=torch.ones(linear.cols))

    threshold = lowest_of_model(decoder, terms_of, zeros)
    for linear in decoder:
        mask = sorted_masks(scores, zeros)[linear.key]
        assert torch.equal(threshold.mask(linear, terms_of(linear)), mask)
        zeroed = threshold.zeroed(linear, terms_of(linear))
        assert torch.equal(zeroed, linear.weight.masked_fill(mask, 0))


def test_another_device_counts_the_scores_of_its_linears() -> None:
    class First(Peers):
        size = 2

        def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
            tables.extend(tensors)
            return list(tensors)

    decoder, tables = tiny_llama(num_hidden_layers=1), list[Tensor]()
    decoder.peers = First()
    owners = decoder.peers.owners([linear.numel for linear in decoder])
    terms = ScoreTerms(entries=torch.ones(1, 1))
    lowest_of_model(decoder, lambda _: terms, 10)
    by_linear = [table.view(len(owners), -1) for table in tables]
    assert [table.shape[1] for table in by_linear] == [128, 256, 256, 256]
    counted = [bool(row.any()) for row in by_linear[0]]
    assert counted == [owner == 0 for owner in owners]
