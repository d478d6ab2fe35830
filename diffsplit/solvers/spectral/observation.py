"""What measurements say of each direction that A sees, for any channel.

Let A = U diag(s) Vᵀ, and z the coordinates of an image in the range of Aᵀ. With z known up to an
error of variance w, the measurements of a direction act as an observation of it in Gaussian noise,

    z̃_i = z_i + error of variance ν_i.

For Gaussian noise ν_i = σ_y²/s_i². For any other channel the likelihood is linearized at p = A x̂,
with τ = c w the variance of A x there and g, h as in `Channel.evidence_score`:

    s̃ = p + g/h̄,   variance 1/h̄ − τ

Once x̂ has followed the measurements, with a pull of λ in their units, it knows of y, and p is
A x̂ − τ λ instead: what y adds must not be counted twice, as in message passing. At the fixed point
λ is g there. h̄ is averaged over the measurements of an image: g and h are correlated, and g/h
taken one by one would be biased outward. w is corrected by the evidence, as in message passing.
Where A Aᵀ = c I, the coordinates are the measurements themselves, divided by √c, and no spectrum is
needed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.channels.base import Channel
from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem
from diffsplit.solvers.message_passing.evidence import column, newton_in_log, total
from diffsplit.solvers.problem_facts import NOISE_FLOOR

__all__ = ["Directions", "Observation", "directions_of", "linearized", "with_noise"]

SPREAD = 0.3
"""Standard deviation of log w around what is known of it beforehand."""
RANK = 1e-6
"""Singular values below this share of the largest count as zero."""


class Observation(NamedTuple):
    """What the measurements say.

    Attributes:
        value: z̃ ``(B, …)``.
        variance: ν ``(B, …)``, or broadcastable to it.
        w: the error variance of the coordinates by the evidence ``(B,)``.
    """

    value: Tensor
    variance: Tensor
    w: Tensor


class Directions(ABC):
    """The directions that A sees."""

    @abstractmethod
    def analyze(self, x: Tensor) -> Tensor:
        """The coordinates z of images ``(B, *shape)``."""

    @abstractmethod
    def lift(self, z: Tensor) -> Tensor:
        """Images ``(B, *shape)`` with these coordinates, and nothing else."""

    @abstractmethod
    def observe(self, z: Tensor, w: Tensor, dual: Tensor) -> Observation:
        """The measurements as an observation of z.

        Args:
            z: coordinates of an estimate.
            w: about the variance of their error ``(B,)``.
            dual: λ, the pull of the measurements that the estimate has followed, like z.
        """

    @abstractmethod
    def finest(self, observation: Observation) -> Tensor:
        """The variance of the directions that are seen best ``(B,)``."""


class EqualDirections(Directions):
    """A Aᵀ = c I: a mask, a block average, random orthogonal rows."""

    def __init__(self, problem: Problem, y: Tensor) -> None:
        self.operator, self.y = problem.operator, y
        self.channel = with_noise(problem.channel, self.operator.gram.mean)
        self.c = self.operator.gram.mean
        self.root = math.sqrt(self.c)

    def analyze(self, x: Tensor) -> Tensor:
        return self.operator.apply(x) / self.root

    def lift(self, z: Tensor) -> Tensor:
        return self.operator.adjoint(z) / self.root

    def observe(self, z: Tensor, w: Tensor, dual: Tensor) -> Observation:
        if self.channel.gaussian_sigma is None:
            z = z - column(w, z) * dual
        value, variance, tau = linearized(self.channel, self.root * z, self.y, self.c * w, self.c)
        return Observation(value / self.root, column(variance / self.c, z), tau / self.c)

    def finest(self, observation: Observation) -> Tensor:
        return observation.variance.flatten()


class SpectralDirections(Directions):
    """Any operator with a spectrum: a blur, a bicubic reduction, a small matrix."""

    def __init__(self, problem: Problem, y: Tensor) -> None:
        mean = problem.operator.gram.mean
        self.y, self.channel = y, with_noise(problem.channel, mean)
        self.spectrum = problem.operator.spectrum()
        dtype = y.dtype if y.is_floating_point() else torch.get_default_dtype()
        values = self.spectrum.singular_values.to(dtype)
        least = RANK * float(values.max())
        self.seen = (values > least).to(dtype)
        self.s = values.clamp(min=least)
        shape = self.spectrum.shape
        self.gain = float((values.square()).expand(shape).sum()) / problem.operator.size_out

    def analyze(self, x: Tensor) -> Tensor:
        return self.spectrum.analyze(x) * self.seen

    def lift(self, z: Tensor) -> Tensor:
        return self.spectrum.synthesize(z * self.seen)

    def observe(self, z: Tensor, w: Tensor, dual: Tensor) -> Observation:
        sigma = self.channel.gaussian_sigma
        if sigma is not None:
            noise = torch.full_like(w, sigma**2)
            coefficients = self.spectrum.analyze_measurement(self.y.to(z))
            w = self._error(coefficients - self.s * self.seen * z, noise, w)
        else:
            p = self.spectrum.synthesize_measurement(self.s * self.seen * z)
            pull = self.spectrum.synthesize_measurement(self.seen * dual / self.s)
            p = p - self.gain * column(w, p) * pull
            value, noise, tau = linearized(self.channel, p, self.y, self.gain * w, self.gain)
            coefficients, w = self.spectrum.analyze_measurement(value), tau / self.gain
        return Observation(coefficients / self.s, column(noise, z) / self.s.square(), w)

    def _error(self, residual: Tensor, noise: Tensor, w: Tensor) -> Tensor:
        """w from the residuals: E residual² = s² w + σ_y² along each direction."""
        square = (self.s * self.seen).square()

        def score(w: Tensor) -> tuple[Tensor, Tensor]:
            variance = column(noise, residual) + column(w, residual) * square
            share = column(w, residual) * square / variance
            slope = share * (residual.square() / variance - 1)
            return 0.5 * total(slope), 0.5 * total(share.square())

        return newton_in_log(w, SPREAD, score)

    def finest(self, observation: Observation) -> Tensor:
        variance = observation.variance.expand(len(self.y), *self.spectrum.shape)
        return variance.masked_fill(self.seen == 0, torch.inf).flatten(1).amin(1)


def directions_of(problem: Problem, y: Tensor) -> Directions:
    """The directions that an operator sees, with the measurements of them."""
    alike = isinstance(problem.operator.gram, ScaledIdentity)
    return (EqualDirections if alike else SpectralDirections)(problem, y)


def linearized(
    channel: Channel, p: Tensor, y: Tensor, tau: Tensor, c: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(s̃, its variance ``(B,)``, τ by the evidence) for s ~ N(p, about τ).

    Args:
        c: mean squared length of the rows, which fixes the unit of measurements.
    """
    floor = noise_floor(c) ** 2

    def score(tau: Tensor) -> tuple[Tensor, Tensor]:
        g, h = channel.evidence_score(p, y, column(tau, p))
        slope = 0.5 * total(g.square() - h) * tau
        return slope, 0.5 * total(h.square()) * tau.square()

    tau = newton_in_log(tau, SPREAD, score)
    g, h = channel.evidence_score(p, y, column(tau, p))
    mean = h.flatten(1).mean(1).clamp(min=1e-6 / c).minimum(1 / (tau + floor))
    return p + g / column(mean, p), (1 / mean - tau).clamp(min=floor), tau


def noise_floor(c: float) -> float:
    """The least noise: `NOISE_FLOOR`, or a hundredth of √c where rows are as short as that."""
    return min(NOISE_FLOOR, 0.01 * math.sqrt(c))


def with_noise(channel: Channel, c: float) -> Channel:
    """A channel of real numbers with a little noise instead of none; c as in `linearized`."""
    sigma, floor = channel.gaussian_sigma, noise_floor(c)
    return GaussianNoise(floor) if sigma is not None and sigma < floor else channel
