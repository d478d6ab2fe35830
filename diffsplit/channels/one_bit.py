"""One bit per measurement: the sign of a noisy number, sometimes inverted on its way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsplit.channels.base import Moments
from diffsplit.channels.derivatives import with_derivatives
from diffsplit.channels.discrete import DiscreteChannel
from diffsplit.channels.flipped import flip_log_probability, flip_score, flip_step
from diffsplit.channels.normal import inverse_mills, tail
from diffsplit.channels.normal_push import threshold_step
from diffsplit.channels.parameters import non_negative, number
from diffsplit.channels.tensors import broadcast, like, uniform_like
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like

__all__ = ["OneBit"]


@dataclass(frozen=True)
class OneBit(DiscreteChannel):
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", non_negative("sigma", self.sigma))
        object.__setattr__(self, "threshold", number("threshold", self.threshold))
        object.__setattr__(self, "flip", non_negative("flip", self.flip))
        if self.flip >= 0.5:
            raise InputError(
                f"flip is {self.flip}; a bit says something only if it is inverted with a "
                "probability below 0.5."
            )
        object.__setattr__(self, "smooth", self.sigma > 0)
        object.__setattr__(self, "convex", self.flip == 0)
        object.__setattr__(self, "outcomes", 2)

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        y = self._sign(s + self.sigma * randn_like(s, generator))
        if self.flip == 0:
            return y
        return torch.where(uniform_like(s, generator) < self.flip, -y, y)

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s * y)
        u = self._margin(s, y, self.sigma)
        if self.flip == 0:
            return tail(u).shrink / self.sigma**2
        score, lean = flip_score(u, self.flip)
        return score * lean / self.sigma**2

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """The global minimizer. Without noise: z, or the nearest number of the right sign."""
        z, y, stiffness = broadcast(z, y, like(mu, z))
        if self.sigma == 0:
            wrong = self._sign(z) != y
            cost = 0.5 * stiffness * (z - self._edge(z, y)).square()
            gain = math.log1p(-self.flip) - math.log(self.flip) if self.flip else math.inf
            return torch.where(wrong & (cost < gain), self._edge(z, y), z)

        def step(z: Tensor) -> Tensor:
            u, kappa = self._margin(z, y, self.sigma), stiffness * self.sigma**2
            t = flip_step(u, kappa, self.flip) if self.flip else threshold_step(u, kappa)
            return z + y * self.sigma * t

        return with_derivatives(
            z, step, lambda z: stiffness / (stiffness + self.curvature(step(z), y))
        )

    @torch.no_grad()
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """y r(u)/√v and r(u)(u + r(u))/v, with v = σ² + τ and u = y (p − threshold)/√v."""
        variance = self.sigma**2 + like(tau, p)
        score, shrink, _, _ = self._cut(p, y, variance)
        return y * score / variance.sqrt(), shrink / variance

    @torch.no_grad()
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """Mean and variance of s given y, through t = s + σ n, whose sign was seen."""
        p, y, prior = broadcast(p, y, like(tau, p))
        noise = self.sigma**2
        score, _, spread, excess = self._cut(p, y, noise + prior)
        scale = (noise + prior).sqrt()
        seen = p + y * scale * score
        if excess is not None:
            # From the threshold, not from p: the sum above loses digits when p is far on the
            # wrong side.
            seen = torch.where(
                y * (p - self.threshold) < 0, self.threshold + y * scale * excess, seen
            )
        mean = (noise * p + prior * seen) / (noise + prior)
        if noise == 0 and self.flip == 0:
            edge = self._edge(p, y)
            mean = torch.where(y > 0, torch.maximum(mean, edge), torch.minimum(mean, edge))
        return Moments(mean, prior * (noise + prior * spread) / (noise + prior))

    def value(self, y: Tensor) -> Tensor:
        return y

    def sign_agreement(self, s: Tensor, y: Tensor) -> Tensor:
        return (self._sign(s) == y).to(s.dtype)

    def check(self, y: Tensor) -> None:
        if not bool((y.abs() == 1).all()):
            raise InputError("one-bit measurements are −1 or +1, and other values were given.")

    def config(self) -> dict[str, Any]:
        return {
            "kind": "one-bit",
            "sigma": self.sigma,
            "threshold": self.threshold,
            "flip": self.flip,
        }

    def _sign(self, s: Tensor) -> Tensor:
        return (s >= like(self.threshold, s)).to(s.dtype) * 2 - 1

    def _margin(self, s: Tensor, y: Tensor, scale: float | Tensor) -> Tensor:
        return y * (s - self.threshold) / scale

    def _edge(self, s: Tensor, y: Tensor) -> Tensor:
        """The number nearest to the threshold whose sign is y."""
        edge = like(self.threshold, s)
        return torch.where(y > 0, edge, torch.nextafter(edge, torch.full_like(edge, -torch.inf)))

    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            right = torch.full_like(s, -math.log1p(-self.flip))
            return torch.where(
                self._sign(s) == y, right, -math.log(self.flip) if self.flip else math.inf
            )
        u = self._margin(s, y, self.sigma)
        log_probability: Tensor = (
            flip_log_probability(u, self.flip) if self.flip else torch.special.log_ndtr(u)
        )
        return -log_probability

    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s)
        u = self._margin(s, y, self.sigma)
        score = flip_score(u, self.flip)[0] if self.flip else inverse_mills(u)
        return -y * score / self.sigma

    def _cut(
        self, p: Tensor, y: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of t ~ N(p, variance) given its bit, standardized: score, 1 − V, V, excess."""
        u = self._margin(p, y, variance.sqrt())
        if self.flip == 0:
            cut = tail(u)
            return cut.mean, cut.shrink, cut.variance, cut.excess
        score, lean = flip_score(u, self.flip)
        return score, score * lean, (1 - score * lean).clamp(min=0), None
