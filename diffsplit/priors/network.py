"""Published networks: what the parametrizations of diffusers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.precision import lowered
from diffsplit.priors.sizes import resized, side_multiple
from diffsplit.priors.storage import image_sides

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from typing_extensions import Self

__all__ = ["NetworkPrior"]


class NetworkPrior(Denoiser):
    """A `UNet2DModel`, or a network that is called like one.

    A subclass defines `_denoise` with `_output`, and sets the noise levels.

    Args:
        unet: the network; its output has as many channels as its input, or twice as many, of which
            the second half is a learned variance and is dropped.
        curve: the measured error v(σ), see `measure_error`.

    Attributes:
        precision: the network computes in this dtype, by autocast; None for that of its weights.

    Raises:
        InputError: the network does not name the size of its images, or its output has another
            number of channels.
    """

    precision: torch.dtype | None = None

    def __init__(self, unet: UNet2DModel, curve: ErrorCurve | None = None) -> None:
        sides, channels = image_sides(unet), unet.config.in_channels
        outputs = getattr(unet.config, "out_channels", channels)
        if outputs not in (channels, 2 * channels):
            raise InputError(
                f"the network makes {outputs} channels of {channels}, so that it sees more than a "
                "noisy image; give one that was trained without other inputs."
            )
        self.unet, self.curve = unet, curve
        self.shape = (channels, *sides)

    def _output(self, x: Tensor, timestep: Tensor) -> Tensor:
        """What the network says of ``(B, *shape)`` at timesteps ``(B,)``, in the dtype of ``x``."""
        with lowered(x.device, self.precision):
            full = self.unet(x.to(self.unet.dtype), timestep, return_dict=False)[0]
        output: Tensor = full[:, : self.shape[0]].to(x.dtype)
        return output

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.unet,)

    def at(self, shape: Sequence[int]) -> Self:
        return resized(self, shape, side_multiple(self.unet))
