"""The small denoiser that we train ourselves, with the preconditioning of EDM.

    D(x, σ) = c_skip x + c_out F(c_in x, c_noise)            (Karras et al. 2022, Eq. 7)
    c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

F is a U-Net on patches, see `PatchedUNet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.patched import PatchedUNet

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DModel

__all__ = ["EDMPrior", "build_unet"]


def build_unet(
    size: int, patch: int, channels: tuple[int, ...], image_channels: int = 3
) -> UNet2DModel:
    """A U-Net for ``size``×``size`` images in patches; its output starts at zero.

    Args:
        size: side of the image in pixels, divisible by ``patch · 2^(levels − 1)``.
        patch: side of the blocks that become channels.
        channels: width of each resolution level, multiples of 16.
        image_channels: of the images: 3 for RGB.
    """
    from diffusers import UNet2DModel

    levels = len(channels)
    if size % (patch * 2 ** (levels - 1)):
        raise InputError(
            f"size {size} is not divisible by {patch * 2 ** (levels - 1)}; choose another size."
        )
    unet = UNet2DModel(
        sample_size=size // patch,
        in_channels=image_channels * patch**2,
        out_channels=image_channels * patch**2,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=16,
        attention_head_dim=32,
    )
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for resnet in block.resnets:
            torch.nn.init.zeros_(resnet.conv2.weight)
    torch.nn.init.zeros_(unet.conv_out.weight)
    return unet


class EDMPrior(PatchedUNet, Denoiser):
    """An EDM-preconditioned U-Net, saved as a folder in the diffusers layout.

    Args:
        unet: the network F; ``in_channels = out_channels = 3 patch²``.
        sigma_data: σ_d, the standard deviation of the training images' entries.
        patch: side of the blocks that become channels.
        sigma_min, sigma_max: the noise levels it was trained on.
        curve: the measured error v(σ).
        facts: what the model card says (data, licence, recipe), kept when saved.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    format = "diffsplit-edm"

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

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        norm = (s.square() + self.sigma_data**2).sqrt()
        c_skip, c_out, c_in = (self.sigma_data / norm) ** 2, s * self.sigma_data / norm, 1 / norm
        return c_skip * x + c_out * self._network(c_in * x, sigma)

    def error(self, sigma: float | Tensor) -> Tensor | None:
        return None if self.curve is None else self.curve(sigma)

    def _scheduler(self) -> SchedulerMixin:
        from diffusers import EDMEulerScheduler

        return EDMEulerScheduler(
            sigma_min=self.sigma_min, sigma_max=self.sigma_max, sigma_data=self.sigma_data
        )

    def _config(self) -> dict[str, Any]:
        curve = self.curve
        table = None if curve is None else {"sigma": list(curve.sigma), "mse": list(curve.mse)}
        return {**super()._config(), "error_curve": table}

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        table = config["error_curve"]
        return {**super()._arguments(config), "curve": None if table is None else _curve(table)}


def _curve(table: dict[str, list[float]]) -> ErrorCurve:
    return ErrorCurve(tuple(map(float, table["sigma"])), tuple(map(float, table["mse"])))
