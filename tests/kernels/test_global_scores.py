"""The order of scores, and the Triton kernels in Triton's interpreter, where it is installed."""

from __future__ import annotations

import pytest
import torch

from neuroal.kernels.global_scores import digit_histogram, mask_below
from neuroal.kernels.score_terms import ScoreTerms
from tests.kernels.interpreter import needs_triton, run_in_interpreter

KERNELS = """
import torch
from neuroal.kernels import global_scores_triton as kernels
from neuroal.kernels.global_scores import digit_histogram, mask_below
from tests.kernels.test_global_scores import case
from neuroal.gradients.threshold import DIGITS

for seed in range(4):
    weight, terms = case(seed, torch.bfloat16 if seed % 2 else torch.float32)
    prefix = 0
    for shift, width in DIGITS:
        expected = digit_histogram(weight, terms, prefix, shift, width)
        counts = kernels.digit_histogram(weight, terms, prefix, shift, width)
        assert torch.equal(counts, expected), (seed, shift)
        prefix = (prefix << width) | int(expected.argmax())
    mask = mask_below(weight, terms, prefix, 0)
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(kernels.zeroed_below(weight, terms, prefix), weight.masked_fill(mask, 0))
"""


def case(seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, ScoreTerms]:
    """Return a random weight and terms: of a matrix, or of rows and columns, in turn."""
    generator = torch.Generator().manual_seed(seed)
    rows, cols = 37, 233
    weight = torch.randn(rows, cols, generator=generator).to(dtype)
    if seed < 2:
        entries = torch.rand(rows, cols, generator=generator).mul(3e-9).bfloat16()
        return weight, ScoreTerms(entries=entries)
    u, v = (torch.rand(size, generator=generator) * 1e-3 for size in (rows, cols))
    return weight, ScoreTerms(rows=u, cols=v)


@pytest.mark.parametrize("seed", range(4))
def test_digits_count_all_scores_and_a_mask_has_the_lowest(seed: int) -> None:
    weight, terms = case(seed, torch.float32)
    counts = digit_histogram(weight, terms, 0, 20, 11)
    assert int(counts.sum()) == weight.numel()
    threshold = int(terms.scores(weight).flatten().sort().values[1000].view(torch.int32))
    mask = mask_below(weight, terms, threshold, 0)
    assert int(mask.sum()) == 1000
    assert float(terms.scores(weight)[mask].max()) < float(terms.scores(weight)[~mask].min())


@needs_triton
def test_the_kernels_compute_what_pytorch_does() -> None:
    run_in_interpreter(KERNELS)
