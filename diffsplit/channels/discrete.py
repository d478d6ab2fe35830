"""Channels of finitely many outcomes: what one bit, a few bits and a logistic bit share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffsplit.channels.base import Channel, Moments
from diffsplit.channels.checks import broadcast, check_measurements, check_signal
from diffsplit.channels.normal import Cut
from diffsplit.channels.prox import distance_to_minimizer
from diffsplit.errors import InputError
from diffsplit.noise import Generators, check_generators, randn_like

__all__ = ["DiscreteChannel", "NoisyQuantizer", "check_bits", "uniform_like"]

Elementwise = Callable[[Tensor], Tensor]


class _Elementwise(torch.autograd.Function):
    """A function whose derivatives are given in closed form: a tail never passes through 0 · ∞."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, functions: tuple[Elementwise, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivatives = functions[1:]
        return functions[0](x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if not ctx.derivatives:
            raise NotImplementedError("this derivative of a channel has no closed form here")
        (x,) = ctx.saved_tensors
        return gradients[0] * _with_derivatives(x, *ctx.derivatives), None


def _with_derivatives(x: Tensor, *functions: Elementwise) -> Tensor:
    """The first function of ``x``; the others are its first, second, … derivatives for autograd."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return functions[0](x)
    result: Tensor = _Elementwise.apply(x, functions)  # type: ignore[no-untyped-call]
    return result


class DiscreteChannel(Channel):
    """A channel whose ℓ, ℓ' and ℓ'' a subclass gives in closed form, right in the tails.

    The private methods take tensors of one shape.
    """

    @property
    @abstractmethod
    def _largest_curvature(self) -> float:
        """An upper bound of ℓ''."""

    @abstractmethod
    def _outcome(self, s: Tensor) -> Tensor:
        """The noiseless measurement of s."""

    @abstractmethod
    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ(s)."""

    @abstractmethod
    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ'(s)."""

    @abstractmethod
    def _slopes(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """ℓ'(s) and ℓ''(s)."""

    def _reach(self, z: Tensor, y: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Distances from z to the minimum of ℓ, infinite if there is none, and to an edge."""
        return torch.inf, 0.0

    def nll(self, s: Tensor, y: Tensor) -> Tensor:
        s, y, _ = broadcast(s, y)
        return _with_derivatives(
            s,
            lambda s: self._nll(s, y),
            lambda s: self._grad(s, y),
            lambda s: self._slopes(s, y)[1],
        )

    def grad(self, s: Tensor, y: Tensor) -> Tensor:
        s, y, _ = broadcast(s, y)
        return _with_derivatives(s, lambda s: self._grad(s, y), lambda s: self._slopes(s, y)[1])

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        s, y, _ = broadcast(s, y)
        return self._slopes(s, y)[1]

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """The minimizer; of two minima the lower."""
        z, y, mu = broadcast(z, y, mu)
        return _with_derivatives(
            z,
            lambda z: self._minimizer(z, y, mu),
            lambda z: mu / (mu + self._slopes(self._minimizer(z, y, mu), y)[1]),
        )

    def _minimizer(self, z: Tensor, y: Tensor, mu: Tensor) -> Tensor:
        gradient = self._grad(z, y)
        steep, direction = gradient.abs(), -gradient.sign()

        def slopes(t: Tensor) -> tuple[Tensor, Tensor]:
            first, second = self._slopes(z + direction * t, y)
            return -direction * first, second

        low, high = steep / (mu + self._largest_curvature), steep / mu
        t = distance_to_minimizer(slopes, mu, low, high, z.abs(), *self._reach(z, y))
        return z + direction * t

    def sign_agreement(self, s: Tensor, y: Tensor) -> Tensor:
        s, y, _ = broadcast(s, y)
        return (self._outcome(s) == y).to(s.dtype).masked_fill(s.isnan(), torch.nan)

    @staticmethod
    def _check_sample(s: Tensor) -> None:
        check_signal(s, batched=True)
        if bool(s.isnan().any()):
            raise InputError("s = A x holds NaN, which no bit can express; look at the images.")


class NoisyQuantizer(DiscreteChannel):
    """y says in which interval s + σ n fell, n ~ N(0, 1): ℓ = −log P, P a normal probability.

    A prior s ~ N(p, τ) only widens the noise, to σ² + τ: hence the evidence. ``flip`` is the
    probability that a bit is inverted on its way.
    """

    sigma: float
    flip: float = 0.0

    @abstractmethod
    def _cut(self, s: Tensor, y: Tensor, scale: Tensor | float) -> Cut:
        """Of X = (t − s)/scale, t ~ N(s, scale²), given that t was measured as y."""

    @abstractmethod
    def _mean_seen(self, p: Tensor, y: Tensor, scale: Tensor, cut: Cut) -> Tensor:
        """Mean of t ~ N(p, scale²) given y, from the edge of its interval: p may be far away."""

    @abstractmethod
    def _nearest(self, s: Tensor, y: Tensor) -> Tensor:
        """The number nearest to s whose noiseless measurement is y."""

    @property
    def _largest_curvature(self) -> float:
        return 1 / self.sigma**2

    @property
    def _noiseless_nll(self) -> tuple[float, float]:
        """ℓ without noise, where s would be measured as y and where it would not."""
        return -math.log1p(-self.flip), -math.log(self.flip) if self.flip else math.inf

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        self._check_sample(s)
        return self._outcome(s + self.sigma * randn_like(s, generator))

    @torch.no_grad()
    def evidence(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Tensor:
        """log P with noise of variance σ² + τ."""
        p, y, tau = broadcast(p, y, tau)
        return self._cut(p, y, (self.sigma**2 + tau).sqrt()).log_mass

    @torch.no_grad()
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """m/√v and w/v of a normal N(p, v) cut by the measurement, v = σ² + τ."""
        p, y, tau = broadcast(p, y, tau)
        variance = self.sigma**2 + tau
        cut = self._cut(p, y, variance.sqrt())
        return cut.mean / variance.sqrt(), cut.shrink / variance

    @torch.no_grad()
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """Mean and variance of s given y, through t = s + σ n, whose interval was seen."""
        p, y, tau = broadcast(p, y, tau)
        noise = self.sigma**2
        scale = (noise + tau).sqrt()
        cut = self._cut(p, y, scale)
        seen = self._mean_seen(p, y, scale, cut)
        mean = (noise * p + tau * seen) / (noise + tau) if noise else seen
        return Moments(mean, tau * (noise + tau * cut.variance) / (noise + tau))

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """The minimizer; of two minima the lower. Autograd differentiates it once.

        Without noise: the nearest number measured as y, or z, if a flip costs less.
        """
        if self.sigma > 0:
            return super().prox(z, y, mu)
        z, y, mu = broadcast(z, y, mu)
        nearest, (right, wrong) = self._nearest(z, y), self._noiseless_nll
        return torch.where(0.5 * mu * (z - nearest).square() <= wrong - right, nearest, z)

    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            right, wrong = self._noiseless_nll
            return torch.full_like(s, right).masked_fill(self._outcome(s) != y, wrong)
        return -self._cut(s, y, self.sigma).log_mass

    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s)
        return -self._cut(s, y, self.sigma).mean / self.sigma

    def _slopes(self, s: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.sigma == 0:
            return torch.zeros_like(s), torch.zeros_like(s)
        cut = self._cut(s, y, self.sigma)
        return -cut.mean / self.sigma, cut.shrink / self.sigma**2


def check_bits(y: Tensor) -> None:
    """Raise InputError unless all are −1 or +1."""
    check_measurements(y)
    if not bool((y.abs() == 1).all()):
        raise InputError("one-bit measurements are −1 or +1, and other values were given.")


def uniform_like(x: Tensor, generator: Generators) -> Tensor:
    """Uniform numbers on [0, 1) shaped like ``x`` ``(B, …)``, drawn on the generator's device.

    Raises:
        InputError: neither one generator nor as many as images.
    """
    check_generators(generator, len(x))
    if isinstance(generator, torch.Generator):
        draw = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        return draw.to(x)
    return torch.cat([uniform_like(x[i : i + 1], g) for i, g in enumerate(generator)])
