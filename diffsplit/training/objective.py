"""Denoising score matching for an `EDMPrior` (Karras et al. 2022, Table 1, with our noise levels).

    minimize  E_{x0, n, σ}  (σ² + σ_d²)/(σ σ_d)² · ‖D(x0 + σ n, σ) − x0‖²

ln σ is normal, around −0.4 with standard deviation 1.4 unless told otherwise, and one level in ten
is drawn log-uniformly over the whole range, so that every level a solver may ask for was seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsplit.priors.edm import EDMPrior
from diffsplit.training.config import TrainConfig

__all__ = ["denoising_loss", "draw_sigma"]

UNIFORM_SHARE = 0.1


def draw_sigma(config: TrainConfig, n: int, generator: torch.Generator) -> Tensor:
    """``n`` training noise levels."""
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    normal = torch.randn(n, generator=generator) * config.log_sigma_std + config.log_sigma_mean
    uniform = low + (high - low) * torch.rand(n, generator=generator)
    choice = torch.rand(n, generator=generator) < UNIFORM_SHARE
    return torch.where(choice, uniform, normal).clamp(low, high).exp()


def denoising_loss(prior: EDMPrior, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The weighted squared error of one batch, averaged over all entries.

    Args:
        clean: images ``(B, *shape)`` on [-1, 1].
        sigma: their noise levels ``(B,)``.
        noise: standard normal, shaped like ``clean``.
    """
    sd = prior.sigma_data
    weight = (sigma.square() + sd**2) / (sigma * sd).square()
    error = prior.denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma) - clean
    return (weight.view(-1, 1, 1, 1) * error.square()).mean()
