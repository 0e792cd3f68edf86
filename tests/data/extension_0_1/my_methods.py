from dataclasses import dataclass

import torch
from neuroal.topups.schedule import plan_of_importances

from neuroal.pruners.base import ScorePruner
from neuroal.topups.base import Allocation, TopUp


@dataclass(frozen=True)
class NoisyMagnitude(ScorePruner):
    """|W| times a factor drawn at random from [1 − noise, 1 + noise]."""

    noise: float = 0.1
    seed: int = 0

    def scores(self, weight, statistics):
        generator = torch.Generator(weight.device).manual_seed(self.seed)
        drawn = torch.rand(weight.shape, generator=generator, device=weight.device)
        return weight.float().abs() * (1 + self.noise * (2 * drawn - 1))


@dataclass(frozen=True)
class EarlyDenser(TopUp):
    """Density falls linearly with depth, by 2·spread from first to last block."""

    spread: float = 0.1

    def allocate(self, context):
        importances = {block: -block for block in range(len(context.subject))}
        return Allocation(
            plan_of_importances(
                context.subject, importances, context.sparsity, self.spread, context.rules
            )
        )
