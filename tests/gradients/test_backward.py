"""Backward passes leave the model as it was."""

from __future__ import annotations

import torch

from neuroal.execution.compiled_gradients import Reduction, weight_gradient
from neuroal.execution.runner import BlockRunner
from neuroal.gradients.backward import BlockPass, walk_back
from tests.small_models import random_tokens, tiny_llama


def test_no_hooks_remain_after_a_backward_pass() -> None:
    decoder = tiny_llama(num_hidden_layers=1)
    runner = BlockRunner.capture(decoder, random_tokens(2, 6), 1)
    upstream = [torch.ones_like(part) for part in runner.embedded]
    sums, _ = walk_back(runner, 0, BlockPass(runner.embedded), upstream, Reduction(weight_gradient))
    assert sums.keys() == {linear.key for linear in decoder}
    assert not any(linear.module._forward_hooks for linear in decoder)
