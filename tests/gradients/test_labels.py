"""Labels are drawn from the cumulative probabilities of the whole vocabulary."""

from __future__ import annotations

import pytest
import torch

from neuroal.gradients import labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [7, 256, 300, 2048])
def test_groups_of_entries_give_the_label_of_all_cumulative_probabilities(
    vocabulary: int, dtype: torch.dtype
) -> None:
    """The sum of all probabilities is drawn from, which is not 1 in half precision."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (3 * torch.randn(2000, vocabulary, generator=generator)).to(dtype)
    uniform = torch.rand(2000, generator=generator, dtype=torch.float64)
    cumulative = logits.softmax(-1).double().cumsum(-1)
    thresholds = (uniform * cumulative[:, -1])[:, None]
    expected = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
    assert torch.equal(labels._draw(logits, uniform), expected)


def test_an_entry_without_probability_is_never_drawn() -> None:
    logits = torch.full((4, 600), -torch.inf)
    logits[:, 599] = 0.0
    uniform = torch.tensor([0.0, 0.3, 0.999999, 1 - 2**-53], dtype=torch.float64)
    assert labels._draw(logits, uniform).tolist() == [599] * 4


def test_logits_that_are_nan_give_labels_within_the_vocabulary() -> None:
    """The loss is then NaN, which the caller reports."""
    uniform = torch.tensor([0.0, 0.5], dtype=torch.float64)
    drawn = labels._draw(torch.full((2, 300), torch.nan), uniform)
    assert bool(((drawn >= 0) & (drawn < 300)).all())
