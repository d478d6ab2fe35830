"""Priors whose denoiser, error and posterior are known in closed form.

For x0 ~ N(m, C) and x = x0 + σ n,   D(x, σ) = m + C (C + σ² I)⁻¹ (x − m),
and its error is tr(σ² C (C + σ² I)⁻¹)/N. A mixture weighs its components' answers by how well each
explains x. They are what solvers are tested against, and a way to see what a prior does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like, seeded
from diffsplit.priors.base import Denoiser, check_shape
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error

__all__ = ["GaussianMixturePrior", "GaussianPrior"]


class GaussianPrior(Denoiser):
    """x0 ~ N(mean, C).

    Args:
        shape: shape of one signal; N is its size.
        mean: the mean, broadcast to ``shape``.
        covariance: C as an ``(N, N)`` matrix, or a variance per entry, broadcast to ``shape``.
        sigma_min, sigma_max: the range that `denoise` moves σ into; unbounded by default.
    """

    bounds = None

    def __init__(
        self,
        shape: Sequence[int],
        mean: float | Tensor = 0.0,
        covariance: float | Tensor = 0.25,
        sigma_min: float = 1e-6,
        sigma_max: float = 1e6,
    ) -> None:
        self.shape = check_shape(shape)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        size = math.prod(self.shape)
        self.mean = torch.as_tensor(mean, dtype=torch.float64).expand(self.shape).flatten()
        self.eigenvalues: Tensor
        self.basis: Tensor | None
        matrix = torch.as_tensor(covariance, dtype=torch.float64)
        if matrix.shape == (size, size) and matrix.shape != self.shape:
            self.eigenvalues, self.basis = torch.linalg.eigh(matrix)
        else:
            self.eigenvalues = matrix.expand(self.shape).flatten()
            self.basis = None
        if not bool((self.eigenvalues > -1e-9 * self.eigenvalues.abs().max()).all()):
            raise InputError("a covariance has no negative eigenvalue; give one that is positive.")
        self.eigenvalues = self.eigenvalues.clamp(min=0)
        self.mean_square = float((self.mean.square() + self._variances()).mean())

    def _variances(self) -> Tensor:
        if self.basis is None:
            return self.eigenvalues
        return (self.basis.square() * self.eigenvalues).sum(1)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        mean, eigenvalues = self.mean.to(x), self.eigenvalues.to(x)
        gain = eigenvalues / (eigenvalues + sigma.square().unsqueeze(1))
        centered = x.flatten(1) - mean
        if self.basis is None:
            answer = gain * centered
        else:
            basis = self.basis.to(x)
            answer = (gain * (centered @ basis)) @ basis.T
        return (mean + answer).view_as(x)

    def error(self, sigma: float | Tensor) -> Tensor:
        """v(σ) = mean over the eigenvalues λ of λσ²/(λ + σ²)."""
        variance = torch.as_tensor(sigma).square().unsqueeze(-1)
        eigenvalues = self.eigenvalues.to(variance)
        return (eigenvalues * variance / (eigenvalues + variance)).mean(-1)

    def sample(self, count: int, generator: Generators) -> Tensor:
        """``(count, *shape)`` draws of x0, float32."""
        size = math.prod(self.shape)
        white = randn_like(torch.empty(count, size, dtype=torch.float64), generator)
        colored = white * self.eigenvalues.sqrt()
        if self.basis is not None:
            colored = colored @ self.basis.T
        return (self.mean + colored).float().view(count, *self.shape)


class GaussianMixturePrior(Denoiser):
    """x0 ~ Σ_k weight_k N(mean_k, variance_k I).

    Args:
        means: ``(K, *shape)``.
        variances: one per component ``(K,)``.
        weights: one per component ``(K,)``, normalized here; equal by default.
    """

    bounds = None

    def __init__(
        self,
        means: Tensor,
        variances: Sequence[float] | Tensor,
        weights: Sequence[float] | Tensor | None = None,
        sigma_min: float = 1e-6,
        sigma_max: float = 1e6,
    ) -> None:
        self.shape = check_shape(means.shape[1:])
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.means = means.double().flatten(1)
        count = len(means)
        self.variances = torch.as_tensor(variances, dtype=torch.float64)
        plain = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if self.variances.shape != (count,) or plain.shape != (count,):
            raise InputError(f"{count} means need {count} variances and {count} weights.")
        if not bool((self.variances > 0).all()) or not bool((plain > 0).all()):
            raise InputError("variances and weights of a mixture are positive.")
        self.weights = (plain / plain.sum()).double()
        second = self.means.square().mean(1) + self.variances
        self.mean_square = float((self.weights * second).sum())
        self._curve: ErrorCurve | None = None

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        means, variances = self.means.to(x), self.variances.to(x)
        flat = x.flatten(1)
        total = variances + sigma.square().unsqueeze(1)
        squares = torch.cdist(flat, means).square()
        evidence = -squares / (2 * total) - flat.shape[1] / 2 * total.log()
        posterior = (self.weights.to(x).log() + evidence).softmax(1)
        gain = variances / total
        # Σ_k posterior_k (m_k + gain_k (x − m_k))
        shift = (posterior * (1 - gain)) @ means
        return (shift + (posterior * gain).sum(1, keepdim=True) * flat).view_as(x)

    def error(self, sigma: float | Tensor) -> Tensor:
        """v(σ), measured once on the prior's own samples."""
        if self._curve is None:
            generator = seeded(0, "GaussianMixturePrior")
            count = max(200, 100_000 // self.means.shape[1])
            images = self.sample(count, generator).double()
            top = math.sqrt(self.mean_square)
            self._curve = measure_error(
                self, images, log_grid(1e-3 * top, 1e3 * top, 150), generator, batch=count
            )
        return self._curve(sigma)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``(count, *shape)`` draws of x0, float32."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = randn_like(torch.empty(count, self.means.shape[1], dtype=torch.float64), generator)
        draws = self.means[which] + self.variances[which].sqrt().unsqueeze(1) * noise
        return draws.float().view(count, *self.shape)
