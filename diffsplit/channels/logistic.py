"""One bit per measurement, whose probability is a logistic function of s.

The posterior for s ~ N(u, τ) and y = +1, in units of the scale, has the density
∝ exp(−(s − u)²/2τ)/(1 + e^−s). It has two lengths, √τ and the 1 of the logistic function near
s = 0, and either may be a thousand times the other, which one Gauss–Hermite rule around the mode
cannot follow. So the support is cut at 0 and ±14, beyond which the logistic function is a constant
or an exponential, and each of the four pieces gets its own Gauss–Legendre rule. All weights are
positive.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffsplit.arguments import TINY
from diffsplit.channels.base import Moments
from diffsplit.channels.checks import broadcast, number
from diffsplit.channels.discrete import DiscreteChannel, check_bits, uniform_like
from diffsplit.channels.normal import unit_nodes
from diffsplit.channels.prox import distance_to_minimizer
from diffsplit.noise import Generators

__all__ = ["Logistic"]

_CORNER = 14.0
"""Beyond it 1/(1 + e^−s) is a constant or an exponential but for e⁻¹⁴, too little to resolve."""
_RULES = {True: (25.0, 28), False: (16.0, 16)}
"""For float64 or not: where the log density is cut below its mode, and the nodes of a piece."""


@dataclass(frozen=True)
class Logistic(DiscreteChannel):
    """P(y | s) = 1/(1 + exp(−y s/scale)), y ∈ {−1, +1}.

    Attributes:
        scale: how far from 0, in the units of s = A x with x on [-1, 1], a bit becomes reliable;
            the same as sign(s + noise) with logistic noise of this scale.

    Raises:
        InputError: the scale is not a positive finite number.
    """

    scale: float = 1.0

    outcomes = 2

    def __post_init__(self) -> None:
        self._set(scale=number("scale", self.scale, TINY))

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        self._check_sample(s)
        draw = uniform_like(s, generator)
        return (draw < torch.sigmoid(s / self.scale)).to(s.dtype) * 2 - 1

    @torch.no_grad()
    def evidence(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Tensor:
        """By quadrature for the less likely of the two bits; the other has what is left."""
        u, tau = self._standardized(p, y, tau)
        rare = _posterior(-u.abs(), tau).log_evidence
        return torch.where(u > 0, torch.log1p(-rare.exp()), rare)

    @torch.no_grad()
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """By quadrature."""
        u, tau = self._standardized(p, y, tau)
        found = _posterior(u, tau)
        return y * found.score / self.scale, found.shrink / self.scale**2

    @torch.no_grad()
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """By quadrature."""
        u, tau = self._standardized(p, y, tau)
        found = _posterior(u, tau)
        return Moments(y * self.scale * found.mean, self.scale**2 * found.variance)

    def check(self, y: Tensor) -> None:
        check_bits(y)

    def config(self) -> dict[str, Any]:
        return {"kind": "logistic", "scale": self.scale}

    def _standardized(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """u = y p and τ in units of the scale."""
        p, y, tau = broadcast(p, y, tau)
        return y * p / self.scale, tau / self.scale**2

    @property
    def _largest_curvature(self) -> float:
        return 0.25 / self.scale**2

    def _outcome(self, s: Tensor) -> Tensor:
        return (s >= 0).to(s.dtype) * 2 - 1

    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        return -logsigmoid(y * s / self.scale)

    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        return -y * torch.sigmoid(-y * s / self.scale) / self.scale

    def _slopes(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        u = y * s / self.scale
        doubt = torch.sigmoid(-u)
        return -y * doubt / self.scale, doubt * torch.sigmoid(u) / self.scale**2


class _Posterior(NamedTuple):
    """Facts about the posterior.

    Attributes:
        mean, variance: of s.
        score: d/du of the logarithm of the evidence.
        shrink: minus its second derivative.
        log_evidence: log P(y = +1), to the rounding of 1.
    """

    mean: Tensor
    variance: Tensor
    score: Tensor
    shrink: Tensor
    log_evidence: Tensor


def _posterior(u: Tensor, tau: Tensor) -> _Posterior:
    """Moments of s ~ N(u, τ) given y = +1, and the derivatives in u of log P(y = +1).

    Args:
        u: prior means, any shape.
        tau: prior variances, of a shape that broadcasts to that of ``u``.
    """

    def slopes(t: Tensor) -> tuple[Tensor, Tensor]:
        doubt = torch.sigmoid(-u - t)
        return doubt, doubt * torch.sigmoid(u + t)

    drop, count = _RULES[u.dtype == torch.float64]
    start = torch.sigmoid(-u)
    low, high = start / (1 / tau + 0.25), start * tau
    shift = distance_to_minimizer(slopes, 1 / tau, low, high, torch.zeros_like(u))
    mode = u + shift
    doubt, rest = torch.sigmoid(-mode), torch.sigmoid(mode)
    left = _reach(rest, tau, drop, -logsigmoid(-mode))
    right = _reach(doubt, tau, drop, -logsigmoid(mode))

    side = torch.where(mode > 0, 1.0, -1.0)
    slope = torch.where(mode > 0, doubt, -rest)
    top = logsigmoid(mode.abs())
    ends = [torch.minimum((end - mode).maximum(-left), right) for end in (-_CORNER, 0.0, _CORNER)]
    points = [-left, *ends, right]

    sums = [torch.zeros_like(u) for _ in range(5)]
    for lower, upper in itertools.pairwise(points):
        span = upper - lower
        for node, weight in unit_nodes(count):
            step = lower + span * node
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
    shrink = torch.where(narrow, doubt - 2 * doubt2 + doubt.square(), (1 - variance / tau) / tau)
    peak = logsigmoid(mode) - shift.square() / (2 * tau) - 0.5 * (2 * math.pi * tau).log()
    return _Posterior(mode + step, variance, score, shrink, peak + sums[0].log())


def _reach(slope: Tensor, tau: Tensor, drop: float, slack: Tensor) -> Tensor:
    """How far from the mode, on one side, the log density falls by ``drop`` at the latest.

    At distance δ it has fallen by δ²/2τ at least, and by δ²/2τ + slope δ − slack.
    """
    total = drop + slack
    exponential = 2 * total / (slope + (slope.square() + 2 * total / tau).sqrt())
    return torch.minimum((2 * drop * tau).sqrt(), exponential)
