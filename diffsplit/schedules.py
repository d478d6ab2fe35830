"""Lists of noise levels σ, falling, for samplers and splitting methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch

from diffsplit.arguments import are_counts
from diffsplit.errors import InputError

__all__ = [
    "DECAYS",
    "Spacing",
    "ddpm_grid",
    "ddpm_sigmas",
    "decay",
    "karras_grid",
    "purification_steps",
]

Spacing = Literal["even", "leading", "quadratic", "late"]

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "constant": lambda u: 0.0,
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "biased-high": lambda u: u**2,
    "biased-low": lambda u: 1 - (1 - u) ** 2,
}
"""How much of the way from start to end lies behind, at the share u of the rounds; see `decay`."""


@lru_cache(maxsize=8)
def ddpm_sigmas(
    count: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> tuple[float, ...]:
    """σ_t = √((1 − ᾱ_t)/ᾱ_t) at the integer timesteps t = 0 … count − 1 of linear betas.

    Source: Ho et al. 2020; with the defaults σ runs from 0.01 to 157.
    """
    betas = torch.linspace(beta_start, beta_end, count, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    return tuple(((1 - alpha_bar) / alpha_bar).sqrt().tolist())


def ddpm_grid(steps: int, start: int = 1000, spacing: Spacing = "even") -> list[float]:
    """``steps`` levels of the DDPM grid, from timestep ``start`` − 1 down, then 0.

    "even": timesteps round(T k/K) − 1 for k = K … 1, with K = ``steps`` and T = ``start``; the last
    of them is T/K − 1.
    "leading": timesteps ⌊T/K⌋ k for k = K − 1 … 0, the last of them 0 (DDRM, DDNM).
    "quadratic": timesteps floor √(T² k/(K − 1)) for k = K − 1 … 0, the first moved to T − 1: close
    together where noise is strong, and ending at timestep 0, σ = 0.01.
    "late": timesteps T − 1 − floor √(T² k/(K − 1)) for k = 0 … K − 1, the last moved to 0: close
    together where noise is weak (the code of DiffPIR, Zhu et al. 2023, which calls it "quad").

    Returns:
        ``steps + 1`` falling values; the last is 0.
    """
    if not are_counts(start) or start > 1000:
        raise InputError(
            f"timestep {start!r:.40}; the DDPM grid has 1 to 1000: choose among those."
        )
    if not are_counts(steps) or steps > start:
        raise InputError(
            f"{steps!r:.40} steps; the DDPM grid has 1 to {start}: choose among those."
        )
    if not isinstance(spacing, str) or spacing not in get_args(Spacing):
        raise InputError(f"spacing is one of {get_args(Spacing)}, not {spacing!r}.")
    sigmas = ddpm_sigmas()
    if spacing == "even" or (spacing != "leading" and steps == 1):
        return [sigmas[round(start * k / steps) - 1] for k in range(steps, 0, -1)] + [0.0]
    if spacing == "leading":
        return [sigmas[start // steps * k] for k in range(steps - 1, -1, -1)] + [0.0]
    rising = [math.isqrt(start**2 * k // (steps - 1)) for k in range(steps)]
    if spacing == "late":
        ends = [max(start - 1 - t, steps - 1 - k) for k, t in enumerate(rising)]
        return [sigmas[t] for t in ends] + [0.0]
    timesteps = rising[::-1]
    falling = [min(t, start - 1 - i) for i, t in enumerate(timesteps)]
    return [sigmas[t] for t in falling] + [0.0]


def purification_steps(timestep: int, steps: int) -> list[float]:
    """At most ``steps`` levels of the DDPM grid, evenly spaced from ``timestep`` − 1 to 0, then 0.

    Source: the public code of DCDP, whose DDIM ends at timestep 0, σ = 0.01.
    """
    count = min(steps, timestep)
    top = timestep - 1
    sigmas = ddpm_sigmas()
    return [sigmas[round(top * k / max(count - 1, 1))] for k in range(count - 1, 0, -1)] + (
        [sigmas[0 if count > 1 else top], 0.0]
    )


def decay(start: float, end: float, rounds: int, kind: str = "linear") -> list[float]:
    """``rounds`` values from ``start`` to ``end``: what DCDP's purification strengths follow.

    "linear" is the paper's choice; "constant" stays at ``start``; "cosine" is slow at both ends;
    "biased-high" falls late and spends more rounds near ``start``, "biased-low" falls early.

    Raises:
        InputError: no such kind, or fewer than one round.
    """
    if not isinstance(kind, str) or kind not in DECAYS:
        raise InputError(f"schedule {kind!r} is not known; one of {', '.join(DECAYS)} is.")
    if rounds < 1:
        raise InputError(f"{rounds} rounds; give at least 1.")
    share = DECAYS[kind]
    return [start + share(k / max(rounds - 1, 1)) * (end - start) for k in range(rounds)]


def karras_grid(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> list[float]:
    """σ_i = (σ_max^(1/ρ) + i/(n−1) (σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ, then 0.

    Source: Karras et al. 2022, Eq. 5.

    Returns:
        ``steps + 1`` falling values; the last is 0.
    """
    if steps < 1:
        raise InputError(f"{steps} steps; give at least 1.")
    if not 0 < sigma_min <= sigma_max or not math.isfinite(sigma_max):
        raise InputError(f"noise levels {sigma_min} to {sigma_max} do not rise; swap them.")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]
