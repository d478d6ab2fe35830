"""Half-quadratic splitting along the reverse diffusion: the loop of Diff-OneBit and DiffPIR.

From x at σ_K, for k = K … 1:

    z = D(x, σ_k);   x̂ = data step from z at σ_k;   n̂ = (x − x̂)/σ_k
    x ← x̂ + σ_{k−1} (√(1 − ζ) n̂ + √ζ ξ),   σ_0 = 0
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.solvers.base import Algorithm
from diffsplit.solvers.recovery import Answer, State

__all__ = ["half_quadratic"]


def half_quadratic(
    prior: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    data_step: Callable[[Tensor, float], Tensor],
    zeta: float,
    generator: Generators,
    clip: bool = True,
) -> Algorithm:
    """Walk ``x`` ``(B, *shape)`` down the levels.

    Args:
        sigmas: falling; the last is 0.
        data_step: (z, σ) ↦ x̂, what the measurements make of the prior's estimate.
        zeta: ζ, the share of fresh noise.
        clip: whether z is clipped to the prior's bounds.
    """
    for sigma, sigma_next in itertools.pairwise(sigmas):
        z = prior.denoise(x, sigma)
        z = prior.clip(z) if clip else z
        x_hat = data_step(z, sigma)
        n_hat = (x - x_hat) / sigma
        noise = math.sqrt(1 - zeta) * n_hat
        if zeta > 0:
            noise = noise + math.sqrt(zeta) * randn_like(x, generator)
        x = x_hat + sigma_next * noise
        yield State(sigma, x_hat)
    return Answer(x)
