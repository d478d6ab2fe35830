"""Closed forms for what solvers with latents or consistency models are tested against.

For x0 ~ N(m, C) the probability-flow ODE dx/dσ = (x − D(x, σ))/σ keeps (C + σ²I)^(−1/2) (x − m)
constant along its paths, so that it leads from x at σ to

    f(x, σ) = m + C^(1/2) (C + σ²I)^(−1/2) (x − m),

the consistency function. With the top k eigenvectors V of C, z = Vᵀ(x − m) is the best linear
autoencoder, x = m + V z, and its latents are Gaussian again, with the top k eigenvalues.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel
from diffsplit.priors.gaussian import GaussianPrior
from diffsplit.priors.latent import LatentPrior

__all__ = ["GaussianConsistency", "linear_latent"]


class GaussianConsistency(ConsistencyModel):
    """The consistency function of a Gaussian, which ends at σ = 0 exactly.

    Args:
        prior: N(m, C).
    """

    bounds = None

    def __init__(self, prior: GaussianPrior) -> None:
        self.prior, self.shape = prior, prior.shape
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.mean_square = prior.mean_square

    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        mean, eigenvalues = self.prior.mean.to(x), self.prior.eigenvalues.to(x)
        gain = (eigenvalues / (eigenvalues + sigma.square().unsqueeze(1))).sqrt()
        centered = x.flatten(1) - mean
        if self.prior.basis is None:
            return (mean + gain * centered).view_as(x)
        basis = self.prior.basis.to(x)
        return (mean + (gain * (centered @ basis)) @ basis.T).view_as(x)


def linear_latent(prior: GaussianPrior, size: int, scaling: float = 1.0) -> LatentPrior:
    """The latent prior of a Gaussian that keeps its ``size`` largest principal components.

    Raises:
        InputError: more components than the prior has entries, or fewer than one.
    """
    n = math.prod(prior.shape)
    if not 1 <= size <= n:
        raise InputError(f"{size} latents of {n} entries; give 1 to {n}.")
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
