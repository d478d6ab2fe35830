"""A variance-exploding score network: s(u, σ) = ∇ log p_σ(u).

Such networks of diffusers see images u = (x + 1)/2 on [0, 1], at half the noise level. Tweedie's
formula (Song et al. 2021, App. C) makes a denoiser of the score:

    D(x, σ) = 2 (u + (σ/2)² s(u, σ/2)) − 1 = x + (σ²/2) s((x + 1)/2, σ/2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffsplit.priors.checks import check_levels
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.network import NetworkPrior

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["ScorePrior"]


class ScorePrior(NetworkPrior):
    """A score network of the variance-exploding kind (NCSN++).

    Args:
        sigma_min, sigma_max: the noise levels of its training, in the units of images on [-1, 1]:
            twice those of its scheduler, which are of images on [0, 1].
        others: see `NetworkPrior`.

    Raises:
        InputError: see `NetworkPrior`, or levels out of order.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_min: float = 0.02,
        sigma_max: float = 2696.0,
        curve: ErrorCurve | None = None,
    ) -> None:
        check_levels(sigma_min, sigma_max)
        super().__init__(unet, curve)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        score = self._output((x + 1) / 2, sigma / 2)
        return x + sigma.square().view(-1, 1, 1, 1) / 2 * score
