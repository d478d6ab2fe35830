"""The small denoiser that we train ourselves, with the preconditioning of EDM.

    D(x, σ) = c_skip x + c_out F(c_in x, c_noise)            (Karras et al. 2022, Eq. 7)
    c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

F is a diffusers `UNet2DModel` that sees the image in ``patch``×``patch`` blocks of pixels turned
into channels, which saves time at the full resolution, and c_noise = 250 ln σ, which suits its
sinusoidal time embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser, Prior
from diffsplit.priors.checks import check_levels
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.storage import (
    described,
    diffusers_class,
    image_sides,
    load_part,
    save_part,
    write_folder,
)

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from typing_extensions import Self

__all__ = ["EDMPrior", "PatchedUNet", "build_unet"]

NOISE_SCALE = 250.0
NUMBERS: dict[str, type[float] | type[int]] = {
    "sigma_data": float,
    "patch": int,
    "sigma_min": float,
    "sigma_max": float,
    "mean_square": float,
}
"""Arguments of every `PatchedUNet` that its folder keeps."""


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


def image_shape(unet: UNet2DModel, patch: int) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of the images that a network sees in ``patch``×``patch`` blocks.

    Raises:
        InputError: the network does not fit the blocks, or does not name the size of its input.
    """
    height, width = image_sides(unet)
    config = unet.config
    whole = isinstance(patch, int) and patch >= 1 and config.in_channels % patch**2 == 0
    if not whole or config.out_channels != config.in_channels:
        raise InputError(
            f"a network with {config.in_channels} input and {config.out_channels} output channels "
            f"does not work on patches of {patch!r:.40} pixels."
        )
    return config.in_channels // patch**2, height * patch, width * patch


class PatchedUNet(Prior):
    """A prior with a network F and EDM's scale σ_d of the data.

    A subclass defines `_denoise` or `_consistency` with `_network`.

    Args:
        unet: the network F; it has ``C patch²`` input and output channels for C color channels.
        sigma_data: σ_d, the standard deviation of the training images' entries.
        patch: side of the blocks that become channels; 1 for published models.
        sigma_min, sigma_max: the noise levels it was trained on.
        mean_square: E[x0²] per entry.
        facts: what the model card says (data, license, recipe), kept when saved.

    Attributes:
        format: name in ``prior.json``.
        scheduler: the class of diffusers that describes the model to other programs.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    format: ClassVar[str]
    scheduler: ClassVar[str]

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float = 0.5,
        patch: int = 1,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        mean_square: float = 0.25,
        facts: dict[str, Any] | None = None,
    ) -> None:
        check_levels(sigma_min, sigma_max, sigma_data=sigma_data, mean_square=mean_square)
        self.shape = image_shape(unet, patch)
        self.unet, self.sigma_data, self.patch = unet, sigma_data, patch
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.mean_square = mean_square
        self.facts = facts or {}

    def _network(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F of scaled images ``(B, *shape)`` at levels ``(B,)``, in the dtype of ``x``."""
        patches = pixel_unshuffle(x, self.patch).to(self.unet.dtype)
        f = self.unet(patches, NOISE_SCALE * sigma.log(), return_dict=False)[0]
        return pixel_shuffle(f.to(x.dtype), self.patch)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.unet,)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), **self.facts}

    def _config(self) -> dict[str, Any]:
        """The numbers in ``prior.json``."""
        return {name: getattr(self, name) for name in (*NUMBERS, "facts")}

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor from what `_config` wrote."""
        numbers = {name: kind(config[name]) for name, kind in NUMBERS.items()}
        return {**numbers, "facts": dict(config["facts"])}

    def save(self, folder: Path, half: bool = True) -> None:
        """Write ``unet/`` and ``scheduler/`` (diffusers layout) and ``prior.json``.

        An earlier prior in the folder is replaced when all files are complete.

        Args:
            half: store the weights in float16, at half the size.
        """
        with write_folder(folder, self.format, self._config()) as temporary:
            save_part(self.unet, temporary / "unet", half)
            diffusers_class(self.scheduler)(
                sigma_min=self.sigma_min, sigma_max=self.sigma_max, sigma_data=self.sigma_data
            ).save_pretrained(temporary / "scheduler")

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, malformed, or of another format version.
        """
        with described(folder, cls.format) as config:
            unet = load_part("UNet2DModel", folder, "unet", device)
            return cls(unet, **cls._arguments(config))


class EDMPrior(PatchedUNet, Denoiser):
    """An EDM-preconditioned U-Net, saved as a folder in the diffusers layout.

    Args:
        curve: the measured error v(σ).
        others: see `PatchedUNet`.
    """

    format, scheduler = "diffsplit-edm", "EDMEulerScheduler"
    curve: ErrorCurve | None

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
