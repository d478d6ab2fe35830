"""Diffusion purification: noise enough to drown artifacts, then denoise (DCDP, Eq. 11 to 15).

    v = walk(x + σ n; σ = σ_0 > σ_1 > … > 0)

The walk is deterministic DDIM with every predicted clean image clipped to the prior's bounds, and
its first level is the level of the noise by construction. The purifiers differ in the levels alone:

    "ddim"          T/1000 of the DDPM grid, evenly spaced steps down to 0   (Version 1)
    "tweedie"       the same level, and one step: the posterior mean         (Version 2, Sec. 4.1)
    "consistency"   σ itself, and one evaluation of a consistency function   (Eq. 15)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Prior
from diffsplit.priors.consistency import ConsistencyFunction
from diffsplit.schedules import ddpm_grid, ddpm_sigmas
from diffsplit.solvers.reverse import reverse_diffusion

__all__ = ["Purifier", "check_purifier", "purification_grid", "purify"]

Purifier = Literal["ddim", "tweedie", "consistency"]


def purification_grid(kind: Purifier, level: float, steps: int, prior: Prior) -> list[float]:
    """The falling noise levels of one purification, from its strength to 0.

    Args:
        level: T_k: a DDPM timestep from 0 to 1000, rounded, with 0 read as 1; T stands for index
            T − 1 of `ddpm_sigmas`. With "consistency" a noise level σ, at least the prior's least.
        steps: the most evaluations of "ddim"; T of them suffice.
    """
    if kind == "consistency":
        return [max(level, prior.sigma_min), 0.0]
    timestep = max(round(level), 1)
    if kind == "tweedie":
        return [ddpm_sigmas()[timestep - 1], 0.0]
    return ddpm_grid(min(steps, timestep), timestep)


def purify(prior: Prior, x: Tensor, grid: list[float], generator: Generators) -> Tensor:
    """``x`` ``(B, *shape)`` submerged in noise of level ``grid[0]``, then walked down the grid."""
    noisy = x + grid[0] * randn_like(x, generator)
    return reverse_diffusion(prior, noisy, grid, generator, eta=0.0)


def check_purifier(kind: Purifier, prior: Prior, levels: list[float]) -> None:
    """Raise InputError where the prior cannot purify that way, or not at those strengths."""
    one_step = isinstance(prior, ConsistencyFunction)
    if kind == "consistency" and not one_step:
        raise InputError(
            f"purifier='consistency' needs a consistency model, and {type(prior).__name__} is a "
            "denoiser; use purifier='tweedie' or 'ddim', or load a consistency model."
        )
    if kind != "consistency" and one_step:
        raise InputError(
            f"purifier={kind!r} needs a denoiser, and {type(prior).__name__} is a consistency "
            "model; use purifier='consistency'."
        )
    if kind == "consistency" and max(levels) > prior.sigma_max:
        raise InputError(
            f"a purification at σ = {max(levels):g} is beyond the {prior.sigma_max:g} that the "
            "consistency model knows; with it, start and end are noise levels (the paper: 1 to 0)."
        )
