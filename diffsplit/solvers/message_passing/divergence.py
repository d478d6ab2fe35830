"""The denoiser's error where it was never measured: Stein's identity and one more evaluation.

The posterior covariance of x0 given r = x0 + σ n is σ² ∂D/∂r, so its mean over the entries is
σ²/N div D(r, σ), and div D ≈ bᵀ(D(r + ε b) − D(r))/ε for random signs b (Ramani et al. 2008).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser

__all__ = ["denoiser_error"]


def denoiser_error(
    prior: Denoiser, r: Tensor, sigma: Tensor, x_hat: Tensor, generator: Generators
) -> Tensor:
    """The mean squared error per entry of x̂ = D(r, σ), one per image ``(B,)``."""
    signs = randn_like(r, generator).sign()
    epsilon = 1e-2 * sigma.view(-1, *(1,) * (r.ndim - 1))
    moved = prior.clip(prior.denoise(r + epsilon * signs, sigma))
    divergence = (signs * (moved - x_hat) / epsilon).flatten(1).mean(1)
    floor = torch.finfo(r.dtype).eps
    return sigma.square() * divergence.clamp(floor, 1 - floor)
