"""Real measurements in Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsplit.channels.base import Channel, Moments
from diffsplit.channels.checks import broadcast, check_signal, number
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like

__all__ = ["GaussianNoise"]


@dataclass(frozen=True)
class GaussianNoise(Channel):
    """y = s + σ n, n ~ N(0, 1).

    With σ = 0 the measurement is exact: `prox` and `moments` return it, `nll` is 0 where s = y and
    infinite elsewhere, and there is no gradient.

    Attributes:
        sigma: σ ≥ 0, in the units of s = A x with x on [-1, 1].

    Raises:
        InputError: σ is negative or not finite; or a gradient is asked for with σ = 0.
    """

    sigma: float

    def __post_init__(self) -> None:
        sigma = number("sigma", self.sigma, 0)
        self._set(sigma=sigma, gaussian_sigma=sigma, smooth=sigma > 0)

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        check_signal(s, batched=True)
        return s + self.sigma * randn_like(s, generator)

    def nll(self, s: Tensor, y: Tensor) -> Tensor:
        s, y, _ = broadcast(s, y)
        if self.sigma == 0:
            return torch.zeros_like(s).masked_fill(s != y, torch.inf)
        normalizer = math.log(self.sigma) + 0.5 * math.log(2 * math.pi)
        return 0.5 * ((s - y) / self.sigma).square() + normalizer

    def grad(self, s: Tensor, y: Tensor) -> Tensor:
        self._need_noise()
        s, y, _ = broadcast(s, y)
        return (s - y) / self.sigma / self.sigma

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        self._need_noise()
        s, y, _ = broadcast(s, y)
        return torch.ones_like(s) / self.sigma / self.sigma

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """(y + μ σ² z)/(1 + μ σ²)."""
        z, y, mu = broadcast(z, y, mu)
        kappa = mu * self.sigma**2
        return (y + kappa * z) / (1 + kappa)

    def evidence(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Tensor:
        """log N(y; p, σ² + τ)."""
        p, y, tau = broadcast(p, y, tau)
        variance = self.sigma**2 + tau
        return -0.5 * ((y - p).square() / variance + (2 * math.pi * variance).log())

    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """(y − p)/(σ² + τ) and 1/(σ² + τ)."""
        p, y, tau = broadcast(p, y, tau)
        variance = self.sigma**2 + tau
        return (y - p) / variance, torch.ones_like(p) / variance

    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """The product of two normal densities; exactly (y, 0) for σ = 0."""
        p, y, tau = broadcast(p, y, tau)
        share = self.sigma**2 / (self.sigma**2 + tau)
        return Moments(y + share * (p - y), tau * share * torch.ones_like(p))

    def config(self) -> dict[str, Any]:
        return {"kind": "gaussian", "sigma": self.sigma}

    def _need_noise(self) -> None:
        if self.sigma == 0:
            raise InputError(
                "a noiseless measurement has no gradient; use the exact data step, "
                "or give GaussianNoise a sigma above 0."
            )
