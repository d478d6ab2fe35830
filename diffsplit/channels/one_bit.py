"""One bit per measurement: the sign of a noisy number, sometimes inverted on its way.

With flips P(u) = ε + (1 − 2ε) Φ(u), ρ = (log P)' = (1 − 2ε) φ/P and (log P)'' = −ρ (u + ρ), which
is positive left of some point: a very wrong bit is more likely a flip than noise, and moves s no
more. Then the objective of the proximal step can have two minima, "it was a flip, stay near z" and
"it was noise, go to the threshold". Its derivative μ t − m(t) is concave up to the point where ρ
rises fastest. One minimum is its first root before that point, the other its last root beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from diffsplit.channels.checks import like, number
from diffsplit.channels.discrete import NoisyQuantizer, check_bits, uniform_like
from diffsplit.channels.normal import Cut, HalfLine, inverse_mills, log_density
from diffsplit.channels.prox import distance_to_minimizer
from diffsplit.errors import InputError
from diffsplit.noise import Generators

__all__ = ["OneBit"]


@dataclass(frozen=True)
class OneBit(NoisyQuantizer):
    """y = sign(s + σ n − threshold) ∈ {−1, +1}, sign(0) = +1, inverted with probability ``flip``.

    With u = y (s − threshold)/σ and r = φ/Φ: ℓ = −log Φ(u), ℓ' = −y r(u)/σ and
    ℓ'' = r(u)(u + r(u))/σ², the probit likelihood; for flip = ε > 0, Φ becomes
    ε + (1 − 2ε) Φ, and ℓ is no longer convex.

    Attributes:
        sigma: σ ≥ 0, in the units of s = A x with x on [-1, 1]; with 0 there is no gradient.
        threshold: what s is compared with, in the same units.
        flip: probability in [0, 0.5) that the bit is inverted.

    Raises:
        InputError: a parameter is out of range or not finite.
    """

    sigma: float
    threshold: float = 0.0
    flip: float = 0.0

    outcomes = 2

    def __post_init__(self) -> None:
        self._set(
            sigma=number("sigma", self.sigma, 0),
            threshold=number("threshold", self.threshold),
            flip=number("flip", self.flip, 0),
        )
        if self.flip >= 0.5:
            raise InputError(
                f"flip is {self.flip}; a bit says something only if it is inverted with a "
                "probability below 0.5."
            )
        self._set(smooth=self.sigma > 0, convex=self.flip == 0)

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        y = super().sample(s, generator)
        return torch.where(uniform_like(s, generator) < self.flip, -y, y) if self.flip else y

    def misfit(self, s: Tensor, y: Tensor) -> Tensor:
        return self.nll(s, y) if self.flip else super().misfit(s, y)

    def check(self, y: Tensor) -> None:
        check_bits(y)

    def config(self) -> dict[str, Any]:
        values = {"sigma": self.sigma, "threshold": self.threshold, "flip": self.flip}
        return {"kind": "one-bit", **values}

    def _outcome(self, s: Tensor) -> Tensor:
        return (s >= like(self.threshold, s)).to(s.dtype) * 2 - 1

    def _nearest(self, s: Tensor, y: Tensor) -> Tensor:
        edge = like(self.threshold, s)
        below = torch.nextafter(edge, torch.full_like(edge, -torch.inf))
        return torch.where(y > 0, torch.maximum(s, edge), torch.minimum(s, below))

    def _cut(self, s: Tensor, y: Tensor, scale: Tensor | float) -> Cut:
        u = y * (s - self.threshold) / scale
        return _FlippedBit(u, y, self.flip) if self.flip else HalfLine(u, y)

    def _mean_seen(self, p: Tensor, y: Tensor, scale: Tensor, cut: Cut) -> Tensor:
        if self.flip:
            return p + scale * cut.mean
        return self._nearest(self.threshold + y * scale * cut.excess, y)

    def _minimizer(self, z: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        if self.flip == 0:
            return super()._minimizer(z, y, mu)

        def slopes(t: Tensor) -> tuple[Tensor, Tensor]:
            first, second = self._slopes(z + y * t, y)
            return -y * first, second

        u = y * (z - self.threshold) / self.sigma
        split = self.sigma * (_steepest_rise(self.flip) - u).clamp(min=0)
        low = slopes(torch.zeros_like(z))[0] / (mu + self._largest_curvature)
        high = inverse_mills(u) / self.sigma / mu  # ρ ≤ r: without flips the step is longer
        stay = distance_to_minimizer(slopes, mu, low, split, z.abs(), first=True)
        move = distance_to_minimizer(slopes, mu, torch.maximum(low, split), high, z.abs())

        def objective(t: Tensor) -> Tensor:
            return self._nll(z + y * t, y) + 0.5 * mu * t.square()

        stays = (split > 0) & (objective(stay) < objective(move))
        return z + y * torch.where(stays, stay, move)


class _FlippedBit(HalfLine):
    """X ~ N(0, 1) after the bit "X > −u", inverted with probability ε; side as in `HalfLine`."""

    def __init__(self, u: Tensor, side: Tensor, flip: float) -> None:
        super().__init__(u, side)
        self._flip = flip

    @cached_property
    def log_mass(self) -> Tensor:
        """log P(u), accurate also where P is nearly 1."""
        doubt = self._flip + (1 - 2 * self._flip) * torch.special.ndtr(-self._u)
        return torch.where(self._u > 0, torch.log1p(-doubt), self._log_mixture)

    @cached_property
    def _log_mixture(self) -> Tensor:
        log_normal = math.log1p(-2 * self._flip) + torch.special.log_ndtr(self._u)
        return torch.logaddexp(torch.full_like(self._u, math.log(self._flip)), log_normal)

    @cached_property
    def _ratio(self) -> Tensor:
        """ρ."""
        return (math.log1p(-2 * self._flip) + log_density(self._u) - self._log_mixture).exp()

    @cached_property
    def _excess_and_variance(self) -> tuple[Tensor, Tensor]:
        excess = self._u + self._ratio
        return excess, (1 - self._ratio * excess).clamp(min=0)


@lru_cache(maxsize=64)
def _steepest_rise(flip: float) -> float:
    """The u where ρ rises fastest: with λ = u + ρ, ρ'' = 0 where λ² + ρ λ = 1, λ < 0."""
    low, high = -40.0, 1.0
    for _ in range(80):
        u = 0.5 * (low + high)
        mass = flip + (1 - 2 * flip) * 0.5 * math.erfc(-u / math.sqrt(2))
        score = (1 - 2 * flip) * math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi) / mass
        rising = u + score + 0.5 * (score + math.sqrt(score * score + 4)) < 0
        low, high = (u, high) if rising else (low, u)
    return low
