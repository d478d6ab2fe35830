"""The small denoiser that we train ourselves, with the preconditioning of EDM.

    D(x, σ) = c_skip x + c_out F(c_in x, c_noise)            (Karras et al. 2022, Eq. 7)
    c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

F is a U-Net in patches, and c_noise = 250 ln σ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.patched import PatchedDenoiser, PatchedUNet, build_unet

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["EDMPrior", "PatchedUNet", "build_unet"]


class EDMPrior(PatchedDenoiser):
    """An EDM-preconditioned U-Net, saved as a folder in the diffusers layout.

    Args:
        curve: the measured error v(σ).
        others: see `PatchedUNet`.
    """

    format, scheduler = "diffsplit-edm", "EDMEulerScheduler"

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float,
        patch: int = 2,
        sigma_min: float = 0.01,
        sigma_max: float = 160.0,
        mean_square: float = 0.25,
        curve: ErrorCurve | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(unet, sigma_data, patch, sigma_min, sigma_max, mean_square, facts)
        self.curve = curve

    def output_scale(self, sigma: Tensor) -> Tensor:
        return sigma * self.sigma_data / (sigma.square() + self.sigma_data**2).sqrt()

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        norm = (s.square() + self.sigma_data**2).sqrt()
        c_skip, c_out, c_in = (self.sigma_data / norm) ** 2, s * self.sigma_data / norm, 1 / norm
        return c_skip * x + c_out * self._network(c_in * x, sigma)
