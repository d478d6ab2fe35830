"""One bit per measurement, whose probability is a logistic function of s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffsplit.channels.base import Moments
from diffsplit.channels.derivatives import with_derivatives
from diffsplit.channels.discrete import DiscreteChannel
from diffsplit.channels.logistic_posterior import logistic_posterior, logistic_step
from diffsplit.channels.parameters import positive
from diffsplit.channels.tensors import broadcast, like, uniform_like
from diffsplit.errors import InputError
from diffsplit.noise import Generators

__all__ = ["Logistic"]


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", positive("scale", self.scale))
        object.__setattr__(self, "outcomes", 2)

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        draw = uniform_like(s, generator)
        return (draw < torch.sigmoid(s / self.scale)).to(s.dtype) * 2 - 1

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        u = y * s / self.scale
        return torch.sigmoid(u) * torch.sigmoid(-u) / self.scale**2

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        z, y, stiffness = broadcast(z, y, like(mu, z))

        def step(z: Tensor) -> Tensor:
            return z + y * self.scale * logistic_step(y * z / self.scale, stiffness * self.scale**2)

        return with_derivatives(
            z, step, lambda z: stiffness / (stiffness + self.curvature(step(z), y))
        )

    @torch.no_grad()
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """By quadrature; see `channels.logistic_posterior`."""
        p, y, prior = broadcast(p, y, like(tau, p))
        found = logistic_posterior(y * p / self.scale, prior / self.scale**2)
        return y * found.score / self.scale, found.bend / self.scale**2

    @torch.no_grad()
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """By quadrature; see `channels.logistic_posterior`."""
        p, y, prior = broadcast(p, y, like(tau, p))
        found = logistic_posterior(y * p / self.scale, prior / self.scale**2)
        return Moments(y * self.scale * found.mean, self.scale**2 * found.variance)

    def value(self, y: Tensor) -> Tensor:
        return y

    def sign_agreement(self, s: Tensor, y: Tensor) -> Tensor:
        return ((s >= 0) == (y > 0)).to(s.dtype)

    def check(self, y: Tensor) -> None:
        if not bool((y.abs() == 1).all()):
            raise InputError("one-bit measurements are −1 or +1, and other values were given.")

    def config(self) -> dict[str, Any]:
        return {"kind": "logistic", "scale": self.scale}

    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        return -logsigmoid(y * s / self.scale)

    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        return -y * torch.sigmoid(-y * s / self.scale) / self.scale
