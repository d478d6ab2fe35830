"""The denoiser half of message passing: x̂ = D(r, √v1), and the share of r that is in it.

The share is the divergence α = (1/N) div D(r, σ), which Stein's identity ties to the error of x̂:
E|x̂ − x0|²/N = α v1 for a posterior mean. It is measured with one random direction n,

    α = (1/N) nᵀ(D(r + ε σ n) − D(r))/(ε σ),

at the cost of one more evaluation (Ramani et al. 2008). The ratio of α v1 to the prior's own error
v(√v1) is the image's and hardly changes along the way, so that two measurements do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.priors.base import Denoiser
from diffsplit.solvers.message_passing.evidence import column

__all__ = ["Denoised", "DenoiserModule", "divergence"]

EPSILON = 0.02
"""ε: the length of the step, in units of the noise."""
LEAST, LARGEST = 1e-5, 0.95
"""Bounds of α."""


class Denoised(NamedTuple):
    """The denoiser's answer.

    Attributes:
        image: x̂ ``(B, *shape)``, in the prior's bounds.
        share: α ``(B,)``.
    """

    image: Tensor
    share: Tensor


def divergence(
    prior: Denoiser, r: Tensor, sigma: Tensor, image: Tensor, direction: Tensor
) -> Tensor:
    """α ``(B,)``, bounded, of ``image`` = D(r, σ); one more evaluation.

    Args:
        sigma: one per image ``(B,)``.
        direction: random signs ``(B, *shape)``.
    """
    step = EPSILON * column(sigma, r)
    moved = prior.clip(prior.denoise(r + step * direction, sigma))
    share = ((moved - image) * direction / step).flatten(1).mean(1)
    return share.clamp(LEAST, LARGEST)


class DenoiserModule:
    """The other half of the exchange.

    With an error curve, α v1 follows it times a factor per image. Without one, it follows a power
    of v1: ½ at first, as the curves of trained models nearly do, then the one between the last two
    measurements.

    Args:
        prior: any denoiser.
        direction: random signs ``(B, *shape)``.

    Attributes:
        measure_at: the iterations, from 1, that measure the divergence.
    """

    def __init__(self, prior: Denoiser, direction: Tensor) -> None:
        self.prior, self.direction = prior, direction
        self.has_curve = prior.error(1.0) is not None
        self.measure_at = (2, 5) if self.has_curve else (1, 3, 6)
        self.factor = direction.new_ones(len(direction))
        self.power = direction.new_full((len(direction),), 0.5)
        self.measured: tuple[Tensor, Tensor] | None = None  # log v1 and log α v1, last time

    def __call__(self, r: Tensor, v1: Tensor, iteration: int) -> Denoised:
        """D(r, √v1) and α.

        Args:
            iteration: from 1.
        """
        sigma = v1.sqrt()
        image = self.prior.clip(self.prior.denoise(r, sigma))
        if iteration in self.measure_at:
            share = divergence(self.prior, r, sigma, image, self.direction)
            self._learn(v1.log(), (share * v1).log())
        return Denoised(image, (self._error(v1) / v1).clamp(LEAST, LARGEST))

    def _learn(self, log_v: Tensor, log_error: Tensor) -> None:
        if self.measured is not None:
            run = log_v - self.measured[0]
            slope = ((log_error - self.measured[1]) / run).clamp(0.3, 0.9)
            self.power = torch.where(run.abs() > 0.5, slope, self.power)
        curve = self.prior.error((0.5 * log_v).exp())
        if curve is not None:
            self.factor = (log_error - curve.log()).exp()
        self.measured = log_v, log_error

    def _error(self, v1: Tensor) -> Tensor:
        """α v1, between the measurements of the divergence."""
        curve = self.prior.error(v1.sqrt())
        if curve is not None:
            return self.factor * curve
        assert self.measured is not None  # the first iteration measures
        log_v, log_error = self.measured
        return (log_error + self.power * (v1.log() - log_v)).exp()
