"""Diffusion purification: add noise that hides artifacts, then denoise (DCDP, Eq. 11 to 15).

    v = walk(x + σ n; σ = σ_0 > σ_1 > … > 0)

The walk is deterministic DDIM with every predicted clean image clipped to the prior's bounds, and
its first level is the level of the noise by construction. The purifiers differ in the levels alone:

    "ddim"          T/1000 of the DDPM grid, evenly spaced down to index 0   (Version 1)
    "tweedie"       the same level, and one step: the posterior mean         (Version 2, Sec. 4.1)
    "consistency"   σ itself, and one evaluation of a consistency model      (Eq. 15)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.schedules import ddpm_sigmas, purification_steps
from diffsplit.solvers.reverse import clipped, reverse_diffusion

__all__ = ["Purifier", "check_purifier", "purification_grid", "purify"]

Purifier = Literal["ddim", "tweedie", "consistency"]


def purification_grid(
    kind: Purifier, level: float, steps: int, prior: Denoiser | ConsistencyModel
) -> list[float]:
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
    return purification_steps(timestep, steps)


def purify(
    prior: Denoiser | ConsistencyModel, x: Tensor, grid: list[float], generator: Generators
) -> Tensor:
    """``x`` ``(B, *shape)`` in noise of level ``grid[0]``, walked down the grid."""
    noisy = x + grid[0] * randn_like(x, generator)
    if isinstance(prior, ConsistencyModel):
        return prior.clip(prior.consistency(noisy, grid[0]))
    return reverse_diffusion(clipped(prior), noisy, grid, generator, eta=0.0)


def check_purifier(kind: Purifier, prior: Denoiser | ConsistencyModel, levels: list[float]) -> None:
    """Raise InputError where a consistency model does not know the strengths."""
    if kind == "consistency" and max(levels) > prior.sigma_max:
        raise InputError(
            f"a purification at σ = {max(levels):g} is beyond the {prior.sigma_max:g} that the "
            "consistency model knows; with it, start and end are noise levels (the paper: 1 to 0)."
        )
