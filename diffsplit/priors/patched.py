"""What our own networks share: a U-Net on patches with a preconditioning, saved as a folder.

The network F is a diffusers `UNet2DModel` that sees the image in ``patch``×``patch`` blocks of
pixels turned into channels, which spends its work where a small network needs it, and 250 ln σ,
which suits its sinusoidal time embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffsplit.errors import InputError
from diffsplit.priors.base import Prior, check_levels
from diffsplit.priors.folder import described, write_folder
from diffsplit.priors.pretrained import image_sides, load_part, save_part

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DModel

__all__ = ["PatchedUNet", "image_shape"]

NOISE_SCALE = 250.0
Self = TypeVar("Self", bound="PatchedUNet")


def image_shape(unet: UNet2DModel, patch: int) -> tuple[int, int, int]:
    """Shape ``(C, H, W)`` of the images that a network sees in ``patch``×``patch`` blocks.

    Raises:
        InputError: the network does not fit the blocks, or does not name the size of its input.
    """
    config = unet.config
    height, width = image_sides(unet)
    if patch < 1 or config.in_channels % patch**2 or config.out_channels != config.in_channels:
        raise InputError(
            f"a network with {config.in_channels} input and {config.out_channels} output channels "
            f"does not work on patches of {patch}×{patch} pixels."
        )
    return config.in_channels // patch**2, height * patch, width * patch


class PatchedUNet(Prior):
    """A prior with a network F and EDM's scale σ_d of the data.

    A subclass defines `_denoise` with `_network`, `format`, and `_scheduler`.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    format: ClassVar[str]

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float,
        patch: int,
        sigma_min: float,
        sigma_max: float,
        mean_square: float,
        facts: dict[str, Any] | None,
    ) -> None:
        check_levels(sigma_min, sigma_max, sigma_data=sigma_data, mean_square=mean_square)
        self.shape = image_shape(unet, patch)
        self.unet, self.sigma_data, self.patch = unet, sigma_data, patch
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.mean_square = mean_square
        self.facts = facts or {}

    @abstractmethod
    def _scheduler(self) -> SchedulerMixin:
        """What goes into ``scheduler/``, for other programs."""

    def _network(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F of scaled images ``(B, *shape)`` at levels ``(B,)``, in the dtype of ``x``."""
        patches = pixel_unshuffle(x, self.patch).to(self.unet.dtype)
        f = self.unet(patches, NOISE_SCALE * sigma.log(), return_dict=False)[0]
        return pixel_shuffle(f.to(x.dtype), self.patch)

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    def to(self: Self, device: str | torch.device) -> Self:
        self.unet.to(device=torch.device(device))
        return self

    def describe(self) -> dict[str, object]:
        parameters = sum(p.numel() for p in self.unet.parameters())
        return {**super().describe(), "parameters": parameters, **self.facts}

    def _config(self) -> dict[str, Any]:
        """The numbers in ``prior.json``."""
        return {
            "sigma_data": self.sigma_data,
            "patch": self.patch,
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "mean_square": self.mean_square,
            "facts": self.facts,
        }

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor from what `_config` wrote."""
        names = ("sigma_data", "sigma_min", "sigma_max", "mean_square")
        return {
            **{name: float(config[name]) for name in names},
            "patch": int(config["patch"]),
            "facts": dict(config["facts"]),
        }

    def save(self, folder: Path, half: bool = True) -> None:
        """Write ``unet/`` and ``scheduler/`` (diffusers layout) and ``prior.json``.

        An earlier prior in the folder is replaced when all files are complete.

        Args:
            half: store the weights in float16, at half the size.
        """
        with write_folder(folder, self.format, self._config()) as temporary:
            save_part(self.unet, temporary / "unet", half)
            self._scheduler().save_pretrained(temporary / "scheduler")

    @classmethod
    def load(cls: type[Self], folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, malformed, or of another format version.
        """
        with described(folder, cls.format) as config:
            unet = load_part("UNet2DModel", str(folder), "unet", device)
            return cls(unet, **cls._arguments(config))
