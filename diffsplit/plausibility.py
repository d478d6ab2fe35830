"""Whether a recovered picture explains its measurements: a posterior predictive check.

The misfit of the measurements under the picture, −log p(y | A x̂), is compared with the misfits of
measurements that are drawn from the picture itself, y' ~ p(y' | A x̂). Source: Gelman, Meng and
Stern, "Posterior predictive assessment of model fitness via realized discrepancies", 1996.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.noise import Generators
from diffsplit.problem import Problem

__all__ = ["DOUBTFUL", "contradiction"]

DOUBTFUL = 6.0
"""The z-score from which on a picture does not explain its measurements."""

DRAWS = 16
SMALL = 0.05
"""The share up to which a disagreement, beyond that of noise, is small, however many measurements
show it: of quantized measurements the share that A x̂ would not give, of real ones ‖A x̂ − y‖/‖y‖.
DCDP ends up to 0.02 away from noiseless measurements of the bundled cats."""


@torch.no_grad()
def contradiction(problem: Problem, image: Tensor, y: Tensor, generator: Generators) -> Tensor:
    """How far each image is from explaining its measurements, as a z-score ``(B,)``.

    The score is the distance of the misfit from the mean of `DRAWS` drawn ones, in their standard
    deviations. It is at most `DOUBTFUL` where the disagreement is small, and in proportion to the
    disagreement where the channel has no noise.

    Args:
        image: recovered images ``(B, *shape_in)``.
        y: their measurements ``(B, *shape_out)``.
        generator: of the draws.
    """
    channel, s = problem.channel, problem.operator.apply(image)
    drawn = [channel.sample(s, generator) for _ in range(DRAWS)]
    misfits = torch.stack([_misfit(problem, s, draw) for draw in drawn])
    differences = torch.stack([_difference(problem, s, draw) for draw in drawn]).mean(0)
    size = (_difference(problem, s, y) - differences) * DOUBTFUL
    excess = _misfit(problem, s, y) - misfits.mean(0)
    spread = misfits.std(0)
    score = torch.where(spread > 0, excess / spread, torch.where(excess > 0, torch.inf, 0.0))
    return torch.minimum(score, size)


def _misfit(problem: Problem, s: Tensor, y: Tensor) -> Tensor:
    return problem.channel.misfit(s, y).flatten(1).sum(1)


def _difference(problem: Problem, s: Tensor, y: Tensor) -> Tensor:
    """The disagreement of y and s, as a multiple of the largest small one ``(B,)``."""
    agreement = problem.channel.sign_agreement(s, y)
    if agreement is not None:
        return (1 - agreement.flatten(1).mean(1)) / SMALL
    distance, length = (s - y).flatten(1).norm(dim=1), y.flatten(1).norm(dim=1)
    share: Tensor = distance / length.clamp(min=1e-12)
    return share / SMALL
