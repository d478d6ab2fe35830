"""The gradient through decoder ∘ denoiser, which guidance in latents has in common.

    ẑ = D(z, σ) + κ (z − D(z, σ)),   x̂ = decoder(ẑ)
    (u, w) ↦ (∂ẑ/∂z)ᵀ (u + (∂x̂/∂ẑ)ᵀ w),   u a slope in latents, w one in pixels

The papers step on f, a norm and not its square, by ζ ∇_{z_t} f, z_t = z/√(1 + σ²), see `vp_step`.
How far all steps lead together goes with their number: ζ belongs to the paper's number of steps,
and fewer steps are longer in proportion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.data_steps.derivative import differentiated
from diffsplit.noise import Generators
from diffsplit.priors.base import LatentModel
from diffsplit.solvers.guidance.gradient import per_norm
from diffsplit.solvers.variance_preserving import first_noise

__all__ = ["Decoded", "decoded", "first_latents", "unit"]


class Decoded(NamedTuple):
    """What a latent model makes of noisy latents.

    Attributes:
        clean: D(z, σ) ``(B, *latent.shape)``.
        estimate: ẑ, the same where κ = 0.
        image: x̂ ``(B, *shape)``, not clipped.
        pullback: w, and u if there is one, to the slope in z; it can be called once, and frees the
            graph of the step.
    """

    clean: Tensor
    estimate: Tensor
    image: Tensor
    pullback: Callable[[Tensor, Tensor | None], Tensor]


def decoded(prior: LatentModel, z: Tensor, sigma: float, kept: float = 0.0) -> Decoded:
    """The clean image that ``z`` stands for, and its derivative: one network evaluation.

    Args:
        z: noisy latents ``(B, *latent.shape)`` at level ``sigma``.
        kept: κ, the share of the noise that stays in ẑ.
    """
    clean, through_denoiser = prior.latent.vjp(z, sigma)
    estimate = clean + kept * (z - clean)
    image, through_decoder = differentiated(prior.decode, estimate)

    def pullback(in_pixels: Tensor, in_latents: Tensor | None = None) -> Tensor:
        slope = through_decoder(in_pixels)
        if in_latents is not None:
            slope = slope + in_latents
        return through_denoiser((1 - kept) * slope) + kept * slope

    return Decoded(clean, estimate, image, pullback)


def first_latents(prior: LatentModel, like: Tensor, sigma: float, generator: Generators) -> Tensor:
    """Pure noise at the first level, √(1 + σ²) n: z_T ~ N(0, I) in the papers' terms.

    Args:
        like: measurements ``(B, …)``; their dtype where it is a float's, and their device.
    """
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    shape = (len(like), *prior.latent.shape)
    empty = torch.empty(shape, dtype=dtype, device=like.device)
    return first_noise(empty, sigma, generator)


def unit(v: Tensor, of: Tensor | None = None) -> Tensor:
    """v/‖w‖, of each image by itself, where w is ``of``, or v if that is None; 0 stays 0."""
    return per_norm(v, (v if of is None else of).flatten(1).norm(dim=1))
