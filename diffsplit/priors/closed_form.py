"""Priors whose denoiser, error and consistency function are known in closed form.

For x0 ~ N(m, C) and x = x0 + σ n,   D(x, σ) = m + C (C + σ² I)⁻¹ (x − m),
and its error is tr(σ² C (C + σ² I)⁻¹)/N. A mixture weighs its components' answers by how well each
explains x. The probability-flow ODE dx/dσ = (x − D(x, σ))/σ keeps (C + σ²I)^(−1/2) (x − m) constant
along its paths, so that it leads from x at σ to

    f(x, σ) = m + C^(1/2) (C + σ²I)^(−1/2) (x − m),

the consistency function. With the top k eigenvectors V of C, z = Vᵀ(x − m) is the best linear
autoencoder, x = m + V z, and its latents are Gaussian again, with the top k eigenvalues. Solvers
are tested against these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.counting import counting
from diffsplit.errors import InputError
from diffsplit.noise import Generators, check_generators, randn_like, seeded
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.priors.checks import (
    as_levels,
    check_levels,
    check_shape,
    checked_count,
    checked_number,
    checked_numbers,
)
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error
from diffsplit.priors.latent import LatentPrior

__all__ = ["GaussianConsistency", "GaussianMixturePrior", "GaussianPrior", "linear_latent"]


class GaussianPrior(Denoiser):
    """x0 ~ N(mean, C).

    Args:
        shape: shape of one signal; N is its size.
        mean: the mean, broadcast to ``shape``.
        covariance: C as an ``(N, N)`` matrix, or a variance per entry, broadcast to ``shape``.
        sigma_min, sigma_max: the range that `denoise` moves σ into; practically unbounded.

    Raises:
        InputError: a shape does not fit, a number is not finite, or C is no covariance.
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
        check_levels(sigma_min, sigma_max)
        self.shape = check_shape(shape)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        size = math.prod(self.shape)
        matrix = checked_numbers("covariance", covariance)
        self.mean = checked_numbers("mean", mean, self.shape)
        self.eigenvalues: Tensor
        self.basis: Tensor | None = None
        if matrix.shape == (size, size) and matrix.shape != self.shape:
            if not torch.allclose(matrix, matrix.T):
                raise InputError("a covariance matrix is symmetric; give (C + C.T) / 2.")
            self.eigenvalues, self.basis = torch.linalg.eigh(matrix)
        else:
            self.eigenvalues = checked_numbers("covariance", matrix, self.shape)
        if not bool((self.eigenvalues > -1e-9 * self.eigenvalues.abs().max()).all()):
            raise InputError("a covariance has no negative eigenvalue; give one that is positive.")
        self.eigenvalues = self.eigenvalues.clamp(min=0)
        variances = self.eigenvalues
        if self.basis is not None:
            variances = (self.basis.square() * self.eigenvalues).sum(1)
        self.mean_square = float((self.mean.square() + variances).mean())

    def scale(self, x: Tensor, power: float, sigma: Tensor) -> Tensor:
        """m + (C (C + σ² I)⁻¹)^power (x − m) for x ``(B, *shape)`` and σ ``(B,)``."""
        mean, eigenvalues = self.mean.to(x), self.eigenvalues.to(x)
        gain = (eigenvalues / (eigenvalues + sigma.square().unsqueeze(1))).pow(power)
        centered = x.flatten(1) - mean
        if self.basis is None:
            return (mean + gain * centered).view_as(x)
        basis = self.basis.to(x)
        return (mean + (gain * (centered @ basis)) @ basis.T).view_as(x)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.scale(x, 1.0, sigma)

    def error(self, sigma: float | Tensor) -> Tensor:
        """v(σ) = mean over the eigenvalues λ of λσ²/(λ + σ²)."""
        variance = as_levels(sigma).square().unsqueeze(-1)
        eigenvalues = self.eigenvalues.to(variance)
        return (eigenvalues * variance / (eigenvalues + variance)).mean(-1)

    def sample(self, count: int, generator: Generators) -> Tensor:
        """``(count, *shape)`` draws of x0, float32."""
        count, size = checked_count("count", count), math.prod(self.shape)
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
        check_levels(sigma_min, sigma_max)
        points = checked_numbers("means", means)
        self.shape = check_shape(points.shape[1:])
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.means = points.flatten(1)
        count = len(points)
        self.variances = checked_numbers("variances", variances)
        plain = torch.ones(count) if weights is None else checked_numbers("weights", weights)
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
        # Not through a matrix product, which cancels, and which only large batches would take.
        squares = torch.cdist(flat, means, compute_mode="donot_use_mm_for_euclid_dist").square()
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
            with counting():  # these evaluations are nobody's
                self._curve = measure_error(
                    self, images, log_grid(1e-3 * top, 1e3 * top, 150), generator, batch=count
                )
        return self._curve(sigma)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``(count, *shape)`` draws of x0, float32."""
        check_generators(generator, checked_count("count", count))
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = randn_like(torch.empty(count, self.means.shape[1], dtype=torch.float64), generator)
        draws = self.means[which] + self.variances[which].sqrt().unsqueeze(1) * noise
        return draws.float().view(count, *self.shape)


def _check_gaussian(prior: GaussianPrior) -> None:
    if not isinstance(prior, GaussianPrior):
        raise InputError(f"give a GaussianPrior, not {type(prior).__name__}.")


class GaussianConsistency(ConsistencyModel):
    """The consistency function of a Gaussian, which ends at σ = 0 exactly.

    Args:
        prior: N(m, C).
    """

    bounds = None

    def __init__(self, prior: GaussianPrior) -> None:
        _check_gaussian(prior)
        self.prior, self.shape = prior, prior.shape
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.mean_square = prior.mean_square

    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.scale(x, 0.5, sigma)


def linear_latent(prior: GaussianPrior, size: int, scaling: float = 1.0) -> LatentPrior:
    """The latent prior of a Gaussian that keeps its ``size`` largest principal components.

    Raises:
        InputError: more components than the prior has entries, or fewer than one.
    """
    _check_gaussian(prior)
    n = math.prod(prior.shape)
    if checked_count("size", size) > n:
        raise InputError(f"{size} latents of {n} entries; give 1 to {n}.")
    scaling = checked_number("scaling", scaling)
    top = prior.eigenvalues.argsort(descending=True)[:size]
    basis = torch.eye(n, dtype=torch.float64) if prior.basis is None else prior.basis
    v, eigenvalues = basis[:, top], prior.eigenvalues[top]
    return LatentPrior(
        prior.shape,
        lambda x: (x.flatten(1) - prior.mean.to(x)) @ v.to(x),
        lambda z: (prior.mean.to(z) + z @ v.to(z).T).view(-1, *prior.shape),
        GaussianPrior((size,), 0.0, scaling**2 * eigenvalues),
        scaling=scaling,
        bounds=None,
    )
