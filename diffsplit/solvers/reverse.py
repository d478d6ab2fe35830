"""Reverse diffusion in σ-space: from a noisy image at a known level to a sample.

One step from σ to σ', with ρ = σ'/σ and fresh noise of share η:

    x ← D̃ + k (x − D̃) + σ f ξ,   f = η ρ √(1 − ρ²),  k = √(ρ² − f²)

With D̃ = D, η = 1 is the ancestral step, the Gaussian posterior of x_σ' given x_σ and x0 = D, and
η = 0 deterministic DDIM (Song et al. 2021, Eq. 12 and 16). The second-order multistep rule of
DPM-Solver++ (Lu et al. 2022, Alg. 2; its SDE variant for η = 1) extrapolates instead,

    D̃ = D + (h/2h₋)(D − D₋),   h = −log ρ,

with the last evaluation D₋ and its h₋, at no further cost. First-order samples vary too little and
second-order ones too much, so that an order between, a share of the extrapolation, can be nearer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.schedules import karras_grid

__all__ = ["Denoise", "DiffusionStep", "clipped", "reverse_diffusion", "sample", "stepped", "walk"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x, σ) ↦ an estimate of the clean image, with σ one per image ``(B,)``: E[x0 | x_σ] of a prior,
or E[x0 | x_σ, y] of a prior and measurements."""


class DiffusionStep(NamedTuple):
    """Where a step of a `walk` leads.

    Attributes:
        sigma: the level that it left ``(B,)`` or ``(1,)``.
        clean: the denoiser's answer there ``(B, *shape)``.
        x: the noisy image at the next level.
    """

    sigma: Tensor
    clean: Tensor
    x: Tensor


def clipped(prior: Denoiser) -> Denoise:
    """The prior's denoiser, its answers clipped to the prior's bounds."""
    return lambda x, sigma: prior.clip(prior.denoise(x, sigma))


def stepped(
    x: Tensor,
    clean: Tensor,
    now: float | Tensor,
    after: float | Tensor,
    generator: Generators,
    eta: float = 1.0,
) -> Tensor:
    """One step of reverse diffusion, the formula above: ``x`` at level σ becomes one at σ'.

    Args:
        x: noisy images ``(B, *shape)``.
        clean: D̃, the estimate of the clean ones.
        now, after: σ and σ' ≤ σ, numbers or tensors that broadcast with ``x``; σ' may be 0.
        eta: the share of fresh noise.
    """
    rho = torch.as_tensor(after, dtype=x.dtype, device=x.device) / now
    fresh = eta * rho * (1 - rho.square()).clamp(min=0).sqrt()
    kept = (rho.square() - fresh.square()).clamp(min=0).sqrt()
    x = clean + kept * (x - clean)
    return x if eta == 0 else x + now * fresh * randn_like(x, generator)


def walk(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float] | Sequence[Tensor],
    generator: Generators,
    eta: float = 1.0,
    order: float = 1,
) -> Iterator[DiffusionStep]:
    """Walk ``x`` down a falling list of noise levels, or with ``eta`` 0 up a rising one.

    Args:
        denoise: of a prior, such as `clipped`, or conditioned on measurements.
        x: noisy images ``(B, *shape)`` at ``sigmas[0]``.
        sigmas: levels, each a float or one per image ``(B,)``; only the last may be 0.
        eta: 1 for ancestral sampling, 0 for a deterministic walk.
        order: 1, 2 for the multistep rule, or between.

    Yields:
        each step; the ``x`` of the last is a clean image when the last level is 0.
    """
    column = (-1,) + (1,) * (x.ndim - 1)
    levels = [torch.as_tensor(s, dtype=x.dtype, device=x.device).view(column) for s in sigmas]
    before: tuple[Tensor, Tensor] | None = None
    for i, (now, after) in enumerate(itertools.pairwise(levels)):
        clean = denoise(x, now.flatten())
        ratio = after / now
        width = -ratio.log()
        target = clean
        last = i == len(levels) - 2
        if order > 1 and before is not None and not last:
            share = (order - 1) * torch.where(
                before[1] != 0, width / (2 * before[1]), 0
            )  # levels may coincide
            target = clean + share * (clean - before[0])
        before = clean, width
        x = stepped(x, target, now, after, generator, eta)
        yield DiffusionStep(now.flatten(), clean, x)


def reverse_diffusion(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float] | Sequence[Tensor],
    generator: Generators,
    eta: float = 1.0,
    order: float = 1,
) -> Tensor:
    """The end of a `walk`, ``(B, *shape)``: a clean image when the last level is 0."""
    for step in walk(denoise, x, sigmas, generator, eta, order):
        x = step.x
    return x


@torch.no_grad()
def sample(prior: Denoiser, count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Unconditional samples: images that the prior holds to be likely.

    Returns:
        ``(count, *shape)`` in the prior's bounds; ``steps`` network evaluations.
    """
    grid = karras_grid(steps, min(prior.sigma_max, 80.0), max(prior.sigma_min, 0.02))
    noise = randn_like(torch.empty((count, *prior.shape), device=prior.device), generator)
    start = (prior.mean_square + grid[0] ** 2) ** 0.5 * noise
    return prior.clip(reverse_diffusion(clipped(prior), start, grid, generator, eta=1.0, order=2))
