"""E[x0 | x_σ, y]: a denoiser that knows the measurements, for any sampler of diffusion models.

With λ = (z̃ − z)/ν, the pull of the measurements on the coordinates z of the answer,

    x̂ = D(x_σ + σ² λ, σ),   λ ← λ + (z̃ − z − ν λ)/(ν + β σ²),

and what is left of z̃ − z − ν λ is added to x̂; β is 0.55, or 1.2 for bits. By λ the measurements
move hidden directions as well. The fixed point is exact for every Gaussian prior and Gaussian
noise. λ changes little from one noise level to the next, so that one step each follows it: the
denoiser has a state, and is called at falling levels. Source: ours; see `renoising` for the
letters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.priors.base import Denoiser
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.spectral.modules import RenoisingModule

__all__ = ["ConditionedDenoiser"]


class ConditionedDenoiser:
    """(x_σ, σ) ↦ E[x0 | x_σ, y], called at falling σ; one evaluation of the prior a call.

    Args:
        prior: the denoiser without measurements.
        data: the measurement half of a walk, fresh.
        level: σ that the walk starts from.
    """

    def __init__(self, prior: Denoiser, data: RenoisingModule, level: float | Tensor) -> None:
        self.prior, self.data = prior, data
        self.last = torch.zeros_like(data.error) + level

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x_σ, y] ``(B, *shape)``, in the prior's bounds.

        Args:
            x: noisy images ``(B, *shape)``.
            sigma: their level, one or one per image ``(B,)``.
        """
        prior, data = self.prior, self.data
        level = sigma.expand(len(x))
        variance = column(level.square(), x)
        clean = prior.clip(prior.denoise(x + variance * data.pull(), level))
        error = prior.error(level)
        guess = data.error * (level / self.last) if error is None else error
        self.last = level
        return prior.clip(data.conditioned(clean, guess.expand(len(x)), level))
