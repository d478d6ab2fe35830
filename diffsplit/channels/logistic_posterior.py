"""The posterior of s ~ N(u, τ) after one logistic bit y = +1, in units of the scale.

The density ∝ exp(−(s − u)²/2τ)/(1 + e^−s) has two lengths, √τ and the 1 of the logistic function
near s = 0, and either may be a thousand times the other, which one Gauss–Hermite rule around the
mode cannot follow. So the support is cut at 0 and ±14, beyond which the logistic function is a
constant or an exponential, and each of the four pieces gets its own Gauss–Legendre rule. All
weights are positive.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffsplit.channels.prox import Push, balance
from diffsplit.channels.quadrature import unit_nodes

__all__ = ["LogisticPosterior", "logistic_posterior", "logistic_step"]

_BEND = 14.0
"""Beyond it 1/(1 + e^−s) is a constant or an exponential but for e⁻¹⁴, too little to resolve."""
_RULES = {True: (25.0, 28), False: (16.0, 16)}
"""For float64 or not: where the log density is cut below its mode, and the nodes of a piece."""


class LogisticPosterior(NamedTuple):
    """Facts about the posterior.

    Attributes:
        mean, variance: of s.
        score: d/du of the logarithm of the evidence.
        bend: minus its second derivative.
    """

    mean: Tensor
    variance: Tensor
    score: Tensor
    bend: Tensor


def logistic_step(u: Tensor, kappa: Tensor) -> Tensor:
    """The t ≥ 0 with κ t = 1/(1 + exp(u + t)): from u to the mode, for κ = 1/τ."""
    bound = torch.minimum(torch.sigmoid(-u) / kappa, (-u - kappa.log()).clamp(min=1))
    return balance(lambda t: Push(logsigmoid(-u - t), torch.sigmoid(u + t)), bound, kappa)


def logistic_posterior(u: Tensor, tau: Tensor) -> LogisticPosterior:
    """Moments of s ~ N(u, τ) given y = +1, and the derivatives in u of log P(y = +1).

    Args:
        u: prior means, any shape.
        tau: prior variances, of the same shape.
    """
    drop, count = _RULES[u.dtype == torch.float64]
    shift = logistic_step(u, 1 / tau)
    mode = u + shift
    pull, rest = torch.sigmoid(-mode), torch.sigmoid(mode)
    left = _reach(rest, tau, drop, -logsigmoid(-mode))
    right = _reach(pull, tau, drop, -logsigmoid(mode))

    side = torch.where(mode > 0, 1.0, -1.0)
    slope = torch.where(mode > 0, pull, -rest)
    top = logsigmoid(mode.abs())
    ends = [torch.minimum((end - mode).maximum(-left), right) for end in (-_BEND, 0.0, _BEND)]
    points = [-left, *ends, right]

    sums = [torch.zeros_like(u) for _ in range(5)]
    for low, high in itertools.pairwise(points):
        span = high - low
        for node, weight in unit_nodes(count):
            step = low + span * node
            # Relative to the mode, where the two slopes cancel.
            x = side * (mode + step)
            fall = step * (step / (2 * tau) + slope)
            density = span * weight * torch.exp(logsigmoid(x) - top - fall)
            # The less likely of the two bits: small, so that nothing below is 1 − 1.
            doubt = torch.sigmoid(-x)
            sums[0].add_(density)
            sums[1].addcmul_(density, step)
            sums[2].addcmul_(density, step.square())
            sums[3].addcmul_(density, doubt)
            sums[4].addcmul_(density, doubt.square())
    step, step2, doubt, doubt2 = (total / sums[0] for total in sums[1:])

    variance = step2 - step.square()
    # E[−ℓ'] and E[ℓ''] − Var[ℓ'] have all their digits for a narrow prior, the differences of the
    # posterior's moments and the prior's for a wide one.
    narrow, score = tau < 1, torch.where(mode > 0, doubt, 1 - doubt)
    score = torch.where(narrow, score, (shift + step) / tau)
    bend = torch.where(narrow, doubt - 2 * doubt2 + doubt.square(), (1 - variance / tau) / tau)
    return LogisticPosterior(mode + step, variance, score, bend)


def _reach(slope: Tensor, tau: Tensor, drop: float, slack: Tensor) -> Tensor:
    """How far from the mode, on one side, the log density falls by ``drop`` at the latest.

    At distance δ it has fallen by δ²/2τ at least, and by δ²/2τ + slope δ − slack.
    """
    total = drop + slack
    exponential = 2 * total / (slope + (slope.square() + 2 * total / tau).sqrt())
    return torch.minimum((2 * drop * tau).sqrt(), exponential)
