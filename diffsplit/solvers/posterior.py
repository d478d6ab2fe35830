"""Posterior samples from an image in white noise of known level.

A denoiser walks down from the image by ancestral reverse diffusion; a consistency model needs one
or two evaluations, see `consistency_samples`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from diffsplit.noise import Generators
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.schedules import karras_grid
from diffsplit.solvers.consistency_samples import draw_from_noisy
from diffsplit.solvers.recovery import State
from diffsplit.solvers.reverse import clipped, walk

__all__ = ["batches_of_samples", "posterior_samples"]

SHARPEST = 0.02
"""Where sampling ends: noise of two and a half gray levels, just above what 8 bits can show."""

AT_ONCE = 8
"""Samples of each image that are drawn in one batch; one number, so that no batch size matters."""


def batches_of_samples(count: int) -> int:
    """How many batches `posterior_samples` draws one after the other."""
    return -(-count // AT_ONCE)


def posterior_samples(
    prior: Denoiser | ConsistencyModel,
    r: Tensor,
    sigma: Tensor,
    count: int,
    steps: int,
    generator: Generators,
) -> Generator[State, None, Tensor]:
    """Draws from p(x0 | x0 + σ n = r).

    Args:
        r: images in white noise ``(B, *shape)``.
        sigma: its standard deviation, one per image ``(B,)``.
        count: S, samples per image.
        steps: network evaluations per sample; one or two with a consistency model.

    Yields:
        the state of the first sample of each batch of samples, one walk a batch.

    Returns:
        ``(S, B, *shape)``.
    """
    sigma = sigma.clamp(min=SHARPEST)
    draws = []
    for start in range(0, count, AT_ONCE):
        n, batch, number = min(AT_ONCE, count - start), len(r), start // AT_ONCE + 1
        sources = _repeated(generator, n)
        noisy, levels = r.repeat(n, *(1,) * (r.ndim - 1)), sigma.repeat(n)
        if isinstance(prior, ConsistencyModel):
            drawn = draw_from_noisy(prior, noisy, levels, steps, sources)
            yield State(sigma, drawn[:batch].clone(), walk=number)
        else:
            for step in walk(clipped(prior), noisy, _grid(levels, steps), sources, order=2):
                drawn = step.x
                yield State(step.sigma[:batch], step.clean[:batch].clone(), walk=number)
        draws.append(drawn.view(n, *r.shape))
    return torch.cat(draws)


def _repeated(generator: Generators, n: int) -> Generators:
    """Generators for n samples of each image, samples of one image from its own generator."""
    return generator if isinstance(generator, torch.Generator) else list(generator) * n


def _grid(sigma: Tensor, steps: int) -> Sequence[Tensor]:
    """Karras' grid from 1 down, stretched in log σ to each image's level ``(B,)``; then 0."""
    fractions = karras_grid(steps, 1.0, 1e-3)[:-1]
    depth = (sigma / SHARPEST).log() / math.log(1e3)
    levels = [sigma * (depth * math.log(fraction)).exp() for fraction in fractions]
    return [*levels, torch.zeros_like(sigma)]
