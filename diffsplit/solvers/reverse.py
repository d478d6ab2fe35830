"""Reverse diffusion in σ-space: from a noisy image at a known level to a sample.

With η = 1 the step is ancestral: from x at σ to

    x ← D + (σ'²/σ²)(x − D) + σ' √(1 − σ'²/σ²) ξ,

the Gaussian posterior of x_{σ'} given x_σ and x0 = D. With η = 0 it is deterministic DDIM,
x ← D + (σ'/σ)(x − D). In between, η scales the fresh noise (Song et al. 2021, Eq. 12 and 16).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Prior
from diffsplit.schedules import karras_grid

__all__ = ["reverse_diffusion", "sample"]


def reverse_diffusion(
    prior: Prior,
    x: Tensor,
    sigmas: Sequence[float] | Sequence[Tensor],
    generator: Generators,
    eta: float = 1.0,
    after_step: Callable[[], None] | None = None,
) -> Tensor:
    """Walk ``x`` down a falling list of noise levels.

    Args:
        x: noisy images ``(B, *shape)`` at ``sigmas[0]``.
        sigmas: falling levels, each a float or one per image ``(B,)``; the last one may be 0.
        eta: 1 for ancestral sampling, 0 for deterministic DDIM.
        after_step: called once per network evaluation.

    Returns:
        ``(B, *shape)``; clean, on [-1, 1], when the last level is 0.
    """
    column = (-1,) + (1,) * (x.ndim - 1)
    for now, after in zip(sigmas, sigmas[1:], strict=False):
        clean = prior.clip(prior.denoise(x, now))
        if after_step is not None:
            after_step()
        ratio = torch.as_tensor(after / now, dtype=x.dtype, device=x.device).view(column)
        fresh = eta * ratio * (1 - ratio.square()).clamp(min=0).sqrt()
        kept = (ratio.square() - fresh.square()).clamp(min=0).sqrt()
        x = clean + kept * (x - clean)
        if eta > 0 and not (isinstance(after, (int, float)) and after == 0):
            level = torch.as_tensor(now, dtype=x.dtype, device=x.device).view(column)
            x = x + fresh * level * randn_like(x, generator)
    return x


@torch.no_grad()
def sample(prior: Prior, count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Unconditional samples: images that the prior holds to be likely.

    Returns:
        ``(count, *shape)`` on [-1, 1]; ``steps`` network evaluations.
    """
    grid = karras_grid(steps, min(prior.sigma_max, 80.0), max(prior.sigma_min, 0.02))
    noise = randn_like(torch.empty((count, *prior.shape), device=prior.device), generator)
    return reverse_diffusion(prior, math.sqrt(1 + grid[0] ** 2) * noise, grid, generator, eta=0.5)
