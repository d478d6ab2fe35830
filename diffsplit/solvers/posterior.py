"""Posterior samples from an image in white noise of known level."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.noise import Generators
from diffsplit.priors.base import Prior
from diffsplit.priors.consistency import ConsistencyFunction
from diffsplit.schedules import karras_grid
from diffsplit.solvers.consistency_samples import draw_from_noisy
from diffsplit.solvers.reverse import reverse_diffusion

__all__ = ["posterior_samples"]

SHARPEST = 0.02
"""Where sampling ends: noise of two and a half gray levels, just above what 8 bits can show."""

AT_ONCE = 8
"""Samples of each image that are drawn in one batch; one number, so that no batch size matters."""


def posterior_samples(
    prior: Prior, r: Tensor, sigma: Tensor, count: int, steps: int, generator: Generators
) -> Tensor:
    """Draws from p(x0 | x0 + σ n = r): ancestral reverse diffusion that starts at r.

    A consistency function needs one or two evaluations, see `consistency_samples`.

    Args:
        r: images in white noise ``(B, *shape)``.
        sigma: its standard deviation, one per image ``(B,)``.
        count: S, samples per image.
        steps: network evaluations per sample.

    Returns:
        ``(S, B, *shape)``.
    """
    sigma = sigma.clamp(min=SHARPEST)
    draws = []
    for start in range(0, count, AT_ONCE):
        n = min(AT_ONCE, count - start)
        sources = generator if isinstance(generator, torch.Generator) else list(generator) * n
        noisy, levels = r.repeat(n, *(1,) * (r.ndim - 1)), sigma.repeat(n)
        if isinstance(prior, ConsistencyFunction):
            drawn = draw_from_noisy(prior, noisy, levels, steps, sources)
        else:
            drawn = reverse_diffusion(prior, noisy, _grid(levels, steps), sources, order=2)
        draws.append(drawn.view(n, *r.shape))
    return torch.cat(draws)


def _grid(sigma: Tensor, steps: int) -> list[Tensor]:
    """Karras' grid from 1 down, stretched in log σ to each image's level ``(B,)``; then 0."""
    fractions = karras_grid(steps, 1.0, 1e-3)[:-1]
    depth = (sigma.log() - torch.tensor(SHARPEST).log()) / -torch.tensor(1e-3).log()
    levels = [sigma * torch.tensor(f, dtype=sigma.dtype).log().mul(depth).exp() for f in fractions]
    return [*levels, torch.zeros_like(sigma)]
