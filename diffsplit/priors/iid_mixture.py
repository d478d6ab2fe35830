"""A prior of signals whose entries are independent: a mixture of Gaussians and points for each.

For an entry x0 ~ Σ_k w_k N(m_k, c_k), where c_k = 0 is a point at m_k, and x = x0 + σ n,

    D(x, σ) = Σ_k π_k(x) (m_k + c_k/(c_k + σ²) (x − m_k)),    π_k ∝ w_k N(x; m_k, c_k + σ²)
    v(σ) = E Var[x0 | x],   Var[x0 | x] = Σ_k π_k (c_k σ²/(c_k + σ²) + mean_k²) − D²

With a point at zero it is the Bernoulli–Gauss prior of sparse signals, the usual one of compressed
sensing (for example Vila and Schniter 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import check_generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.priors.checks import (
    as_levels,
    check_shape,
    checked_count,
    checked_numbers,
)

__all__ = ["IIDMixturePrior"]

FARTHEST, NODES = 9.0, 601
"""Of the quadrature: nodes around each component, and how many standard deviations they reach."""


class IIDMixturePrior(Denoiser):
    """Independent entries, each x0 ~ Σ_k weight_k N(mean_k, variance_k), of one law for all.

    `sparse` builds the Bernoulli–Gauss prior. (`GaussianMixturePrior` is a mixture of signals as
    wholes: all entries of a signal share one component.)

    Args:
        shape: shape of one signal, for example ``(N,)`` or ``(C, H, W)``.
        means, variances: one per component; a variance of 0 is a point.
        weights: one per component, normalized here; equal by default.

    The range of noise levels is practically unbounded, 10⁻⁶ to 10⁶ times the root of E[x0²].

    Raises:
        InputError: a shape or number of components does not fit, a number is out of range, or all
            entries would be zero.
    """

    bounds = None

    def __init__(
        self,
        shape: Sequence[int],
        means: Sequence[float] | Tensor,
        variances: Sequence[float] | Tensor,
        weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        self.shape = check_shape(shape)
        self.means = checked_numbers("means", means)
        self.variances = checked_numbers("variances", variances)
        plain = torch.ones(len(self.means)) if weights is None else weights
        plain = checked_numbers("weights", plain)
        if self.means.ndim != 1 or not self.means.shape == self.variances.shape == plain.shape:
            raise InputError("a mixture has as many means as variances and weights, in flat lists.")
        if not bool((self.variances >= 0).all()) or not bool((plain > 0).all()):
            raise InputError("the variances of a mixture are 0 or more, its weights positive.")
        self.weights = plain / plain.sum()
        second = self.means.square() + self.variances
        self.mean_square = float((self.weights * second).sum())
        if self.mean_square == 0:
            raise InputError("a signal of zeros needs no measurements; give a variance above 0.")
        self.sigma_min, self.sigma_max = (f * math.sqrt(self.mean_square) for f in (1e-6, 1e6))
        fourth = second.square() + 2 * self.variances * (2 * self.means.square() + self.variances)
        relative = float((self.weights * fourth).sum()) / self.mean_square**2 - 1
        # Of ‖x0‖, half of that of ‖x0‖², a sum of N independent squares.
        self.scale_spread = 0.5 * math.sqrt(max(relative, 0.0) / math.prod(self.shape))

    @classmethod
    def sparse(
        cls, shape: Sequence[int], density: float, variance: float | None = None
    ) -> IIDMixturePrior:
        """Bernoulli–Gauss: an entry is N(0, variance) with probability ``density``, else 0.

        Args:
            density: ρ, between 0 and 1.
            variance: of the entries that are not zero; 1/ρ if None, so that E[x0²] = 1.

        Raises:
            InputError: ``density`` or ``variance`` is out of range.
        """
        rho = float(checked_numbers("density", density))
        if not 0 < rho < 1:
            raise InputError(f"the density of a sparse signal is between 0 and 1, not {rho}.")
        width = 1 / rho if variance is None else variance
        return cls(shape, [0.0, 0.0], [0.0, width], [1 - rho, rho])

    def _posterior(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """π_k, and mean and variance of component k given x, each ``(B, …, K)``; σ is ``(B,)``."""
        means, variances = self.means.to(x), self.variances.to(x)
        noise = sigma.square().view(-1, *(1,) * x.ndim)
        total = variances + noise
        away = x.unsqueeze(-1) - means
        evidence = self.weights.to(x).log() - 0.5 * (away.square() / total + total.log())
        gain = variances / total
        return evidence.softmax(-1), means + gain * away, noise * gain

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        share, mean, _ = self._posterior(x, sigma)
        return (share * mean).sum(-1)

    def error(self, sigma: float | Tensor) -> Tensor:
        """v(σ) = ∫ p(x) Var[x0 | x] dx, by quadrature with nodes around every component."""
        given = as_levels(sigma)
        sigma = given.double().flatten()
        means, variances, weights = (
            values.to(sigma) for values in (self.means, self.variances, self.weights)
        )
        scales = (variances + sigma.square()[:, None]).sqrt()[:, None]  # (levels, 1, K)
        steps = torch.linspace(-FARTHEST, FARTHEST, NODES).to(sigma)[:, None]
        nodes = (means + steps * scales).flatten(1).sort(1).values
        share, mean, variance = self._posterior(nodes, sigma)
        middle = (share * mean).sum(-1, keepdim=True)
        spread = (share * (variance + (mean - middle).square())).sum(-1)
        z = (nodes[..., None] - means) / scales
        density = (weights * torch.exp(-0.5 * z.square()) / scales).sum(-1)
        error = torch.trapezoid(density / math.sqrt(2 * math.pi) * spread, nodes)
        return error.view(given.shape).to(given)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``(count, *shape)`` draws of x0, float32."""
        check_generators(generator, checked_count("count", count))
        size = (count, *self.shape)
        which = torch.multinomial(
            self.weights, math.prod(size), replacement=True, generator=generator
        ).view(size)
        noise = randn_like(torch.empty(size, dtype=torch.float64), generator)
        return (self.means[which] + self.variances[which].sqrt() * noise).float()
