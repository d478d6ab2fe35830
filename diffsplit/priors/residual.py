"""A network on top of the best linear denoiser.

    D(x, σ) = W_σ x + √v_G(σ) · F([W_σ x/σ_d, x/√(σ² + σ_d²)], 250 ln σ)

W_σ and v_G are the Wiener filter of a `GaussianSpectrum` and its mean squared error. EDM's skip
connection (Karras et al. 2022, Eq. 7) is the best multiple of x; the Wiener filter is the best
linear function of x whose covariance the cosine transform diagonalizes. F sees both, starts at 0,
and has only to learn what a Gaussian cannot know. At 256×256 pixels a network of a small budget
needs hours to reach the error that it starts from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import Prior
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.priors.patched import PatchedDenoiser, PatchedUNet

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from typing_extensions import Self

__all__ = ["ResidualPrior", "ResidualUNet"]


class ResidualUNet(PatchedUNet):
    """A U-Net in patches that corrects a Wiener filter: D(x, σ) as above.

    Args:
        unet: the network F; for C color channels it has ``C patch²`` output channels and twice as
            many input channels.
        gaussian: the linear denoiser, of the same shape.
        others: see `PatchedUNet`.

    Raises:
        InputError: see `PatchedUNet`, or the Gaussian is of another shape.
    """

    inputs = 2

    def __init__(
        self,
        unet: UNet2DModel,
        gaussian: GaussianSpectrum,
        sigma_data: float,
        patch: int = 4,
        sigma_min: float = 0.01,
        sigma_max: float = 160.0,
        mean_square: float = 0.25,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(unet, sigma_data, patch, sigma_min, sigma_max, mean_square, facts)
        if gaussian.shape != self.shape:
            raise InputError(
                f"the Gaussian is of images {gaussian.shape} and the network of {self.shape}; they "
                "do not belong together."
            )
        self.gaussian = gaussian

    def _corrected(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        linear = self.gaussian.scale(x, 1.0, sigma)
        norm = (s.square() + self.sigma_data**2).sqrt()
        f = self._network(torch.cat([linear / self.sigma_data, x / norm], 1), sigma)
        return linear + self.output_scale(sigma).view_as(s) * f

    def output_scale(self, sigma: Tensor) -> Tensor:
        """√v_G(σ), what F is multiplied by, ``(B,)`` for σ ``(B,)``."""
        return self.gaussian.error(sigma).sqrt()

    def at(self, shape: Sequence[int]) -> Self:
        """Another size is refused: the Wiener filter was fitted to images of one size."""
        return Prior.at(self, shape)

    def to(self, device: str | torch.device) -> Self:
        self.gaussian.to(device)
        return super().to(device)

    def _save_parts(self, folder: Path, half: bool) -> None:
        super()._save_parts(folder, half)
        self.gaussian.save(folder / "gaussian", half)

    @classmethod
    def _load_parts(cls, folder: Path, device: str | torch.device) -> dict[str, Any]:
        gaussian = GaussianSpectrum.load(folder / "gaussian", device)
        return {**super()._load_parts(folder, device), "gaussian": gaussian}


class ResidualPrior(ResidualUNet, PatchedDenoiser):
    """A Wiener filter, corrected by a U-Net in patches.

    Args:
        curve: the measured error v(σ).
        others: see `ResidualUNet`.
    """

    format = "diffsplit-residual"

    def __init__(
        self,
        unet: UNet2DModel,
        gaussian: GaussianSpectrum,
        sigma_data: float,
        patch: int = 4,
        sigma_min: float = 0.01,
        sigma_max: float = 160.0,
        mean_square: float = 0.25,
        curve: ErrorCurve | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            unet, gaussian, sigma_data, patch, sigma_min, sigma_max, mean_square, facts
        )
        self.curve = curve

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._corrected(x, sigma)
