"""U-Nets that see images in patches: what our own priors share, on disk and in memory.

The network F is a diffusers `UNet2DModel`. It sees an image in ``patch``×``patch`` blocks of pixels
turned into channels, which saves time at the full resolution, and the noise level as 250 ln σ,
which suits its sinusoidal time embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser, Prior
from diffsplit.priors.checks import check_levels
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.parts import load_part
from diffsplit.priors.precision import lowered
from diffsplit.priors.sizes import resized, side_multiple
from diffsplit.priors.storage import (
    described,
    diffusers_class,
    image_sides,
    save_part,
    write_folder,
)

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from typing_extensions import Self

__all__ = ["PatchedDenoiser", "PatchedUNet", "build_unet"]

NOISE_SCALE = 250.0
HEAD = 32
"""Channels of a head of attention."""
NUMBERS: dict[str, type[float] | type[int]] = {
    "sigma_data": float,
    "patch": int,
    "sigma_min": float,
    "sigma_max": float,
    "mean_square": float,
}
"""Arguments of every `PatchedUNet` that its folder keeps."""


def build_unet(
    size: int,
    patch: int,
    channels: tuple[int, ...],
    image_channels: int = 3,
    *,
    inputs: int = 1,
    attention: int = 0,
) -> UNet2DModel:
    """A U-Net for ``size``×``size`` images in patches; its output starts at zero.

    Args:
        size: side of the image in pixels, divisible by ``patch · 2^(levels − 1)``.
        patch: side of the blocks that become channels.
        channels: width of each resolution level, multiples of 16.
        image_channels: of the images: 3 for RGB.
        inputs: images that it sees at once.
        attention: so many of the coarsest levels have self-attention.

    Raises:
        InputError: the size is not divisible, there are fewer levels than that, or one of them has
            fewer than 32 channels.
    """
    from diffusers import UNet2DModel

    levels = len(channels)
    if size % (patch * 2 ** (levels - 1)):
        raise InputError(
            f"size {size} is not divisible by {patch * 2 ** (levels - 1)}; choose another size."
        )
    plain = levels - attention
    if not 0 <= attention <= levels or min(channels[plain:], default=HEAD) < HEAD:
        raise InputError(
            f"attention at the last {attention} levels of {channels}; give 0 to {levels}, and "
            f"widths of {HEAD} or more there."
        )
    unet = UNet2DModel(
        sample_size=size // patch,
        in_channels=inputs * image_channels * patch**2,
        out_channels=image_channels * patch**2,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attention,
        up_block_types=("AttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
        norm_num_groups=16,
        attention_head_dim=min(HEAD, channels[-1]),
    )
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for resnet in block.resnets:
            torch.nn.init.zeros_(resnet.conv2.weight)
    for block in (*unet.down_blocks, *unet.up_blocks):
        for layer in getattr(block, "attentions", ()):
            torch.nn.init.zeros_(layer.to_out[0].weight)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def image_shape(unet: UNet2DModel, patch: int, inputs: int = 1) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of the images that a network makes of ``patch``×``patch`` blocks.

    Args:
        inputs: images that it sees at once.

    Raises:
        InputError: the network does not fit the blocks, or does not name the size of its input.
    """
    height, width = image_sides(unet)
    config = unet.config
    whole = isinstance(patch, int) and patch >= 1 and config.out_channels % patch**2 == 0
    if not whole or config.in_channels != inputs * config.out_channels:
        raise InputError(
            f"a network with {config.in_channels} input and {config.out_channels} output channels "
            f"does not work on patches of {patch!r:.40} pixels."
        )
    return config.out_channels // patch**2, height * patch, width * patch


class PatchedUNet(Prior):
    """A prior with a network F and EDM's scale σ_d of the data.

    A subclass defines `_denoise` or `_consistency` with `_network`.

    Args:
        unet: the network F; for C color channels it has ``C patch²`` output channels, and
            `inputs` times as many input channels.
        sigma_data: σ_d, the standard deviation of the training images' entries.
        patch: side of the blocks that become channels; 1 for published models.
        sigma_min, sigma_max: the noise levels it was trained on.
        mean_square: E[x0²] per entry.
        facts: what the model card says (data, license, recipe), kept when saved.

    Attributes:
        format: name in ``prior.json``.
        scheduler: the class of diffusers that describes the model to other programs, if any does.
        inputs: images that the network sees at once.
        precision: the network computes in this dtype, by autocast; None for that of its weights.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    format: ClassVar[str]
    scheduler: ClassVar[str | None] = None
    inputs: ClassVar[int] = 1
    precision: torch.dtype | None = None

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
        self.shape = image_shape(unet, patch, self.inputs)
        self.unet, self.sigma_data, self.patch = unet, sigma_data, patch
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.mean_square = mean_square
        self.facts = facts or {}

    def _network(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F of ``(B, inputs · C, H, W)``, scaled, at levels ``(B,)``, in the dtype of ``x``."""
        patches = pixel_unshuffle(x, self.patch).to(self.unet.dtype)
        patches = patches.contiguous(memory_format=torch.channels_last)  # faster by a tenth
        with lowered(x.device, self.precision):
            f = self.unet(patches, NOISE_SCALE * sigma.log(), return_dict=False)[0]
        return pixel_shuffle(f.to(x.dtype).contiguous(), self.patch)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.unet,)

    def at(self, shape: Sequence[int]) -> Self:
        return resized(self, shape, self.patch * side_multiple(self.unet))

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
        """Write ``unet/``, ``scheduler/`` if there is one (diffusers layout), and ``prior.json``.

        An earlier prior in the folder is replaced when all files are complete.

        Args:
            half: store the weights in float16, at half the size.
        """
        with write_folder(folder, self.format, self._config()) as temporary:
            self._save_parts(temporary, half)

    def _save_parts(self, folder: Path, half: bool) -> None:
        """Everything but the description."""
        save_part(self.unet, folder / "unet", half)
        if self.scheduler is not None:
            diffusers_class(self.scheduler)(
                sigma_min=self.sigma_min, sigma_max=self.sigma_max, sigma_data=self.sigma_data
            ).save_pretrained(folder / "scheduler")

    @classmethod
    def _load_parts(cls, folder: Path, device: str | torch.device) -> dict[str, Any]:
        """The inverse: what it holds, as arguments of the constructor."""
        return {"unet": load_part("UNet2DModel", folder, "unet", device)}

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, malformed, or of another format version.
        """
        with described(folder, cls.format) as config:
            return cls(**cls._load_parts(folder, device), **cls._arguments(config))


class PatchedDenoiser(PatchedUNet, Denoiser):
    """A U-Net in patches that makes a denoiser, with its measured error.

    A subclass sets ``curve`` in its constructor, from an argument of that name.
    """

    curve: ErrorCurve | None

    @abstractmethod
    def output_scale(self, sigma: Tensor) -> Tensor:
        """What F is multiplied by in D, ``(B,)`` for σ ``(B,)``.

        Errors of D, divided by it, have about the same size at every level; training weighs them
        so.
        """

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
