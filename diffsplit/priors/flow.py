"""A rectified flow, or flow matching with a straight path, seen in σ-space.

The network predicts v = n − x0 at x_t = (1 − t) x0 + t n (Lipman et al. 2023; Liu et al. 2023).
With x = x_t/(1 − t) and σ = t/(1 − t), that is t = σ/(1 + σ):

    D(x, σ) = x_t − t v(x_t, t)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.checks import checked_count
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.network import NetworkPrior

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["FlowPrior"]


class FlowPrior(NetworkPrior):
    """A network that predicts the velocity of a rectified flow.

    Its noise levels are those of t from 1/T to 1 − 1/T; at t = 1 there is no image left.

    Args:
        timesteps: T; the network is told T t.
        others: see `NetworkPrior`.

    Raises:
        InputError: see `NetworkPrior`, or T is no whole number from 3 up.
    """

    def __init__(
        self, unet: UNet2DModel, timesteps: int = 1000, curve: ErrorCurve | None = None
    ) -> None:
        super().__init__(unet, curve)
        if checked_count("the number of timesteps", timesteps) < 3:
            raise InputError("a flow has 3 timesteps or more.")
        self.timesteps = timesteps
        self.sigma_min, self.sigma_max = 1 / (timesteps - 1), timesteps - 1.0

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma / (1 + sigma)
        level = t.view(-1, 1, 1, 1)
        between = (1 - level) * x
        return between - level * self._output(between, self.timesteps * t)
