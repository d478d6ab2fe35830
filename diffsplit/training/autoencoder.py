"""A small KL autoencoder (Rombach et al. 2022, Sec. 3.1), without their adversarial part.

    minimize  E ‖D(z) − x‖₁/n + w · KL(q(z|x) ‖ N(0, I))/m,    z ~ q(z|x) = N(E(x), s(x)²)

for n entries of an image and m of its latents. The divergence keeps latents bounded and smooth, so
that a small denoiser can learn them; w is too little to cost detail.

A convolutional autoencoder that has learned small images codes large ones nearly as well, so that
one may start from another's weights. Latents with fewer channels then are the principal directions
of that one's, which lose least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8
from diffsplit.plots import image_grid
from diffsplit.training.config import RunConfig, multiples_of_16
from diffsplit.training.denoiser import flipped_at_random
from diffsplit.training.pictures import Pictures, as_floats
from diffsplit.training.run import Run, seeded_weights

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import AutoencoderKL

__all__ = ["AutoencoderConfig", "AutoencoderRun", "build_autoencoder", "images_at_once"]

LOOKED_AT = 16
"""Images whose latents tell the principal directions."""
ENCODED = 256 * 3 * 64**2
"""Entries of the images that are encoded at once."""


@dataclass(frozen=True)
class AutoencoderConfig(RunConfig):
    """How an autoencoder is trained.

    Attributes:
        size: side of the images in pixels.
        channels: width of each resolution level, multiples of 16; latents are smaller than images
            by ``2^(levels − 1)``.
        latent_channels: of the latents.
        kl: w above.
    """

    images: int = 120_000
    size: int = 64
    channels: tuple[int, ...] = (32, 48, 96)
    latent_channels: int = 4
    kl: float = 1e-3

    def _rules(self) -> dict[str, tuple[bool, str]]:
        return super()._rules() | {
            "channels": multiples_of_16(self.channels),
            "latent_channels": (self.latent_channels >= 1, "1 or more"),
            "kl": (0 <= self.kl < math.inf, "0 or more"),
        }

    @property
    def factor(self) -> int:
        """Side of an image over that of its latents."""
        return int(2 ** (len(self.channels) - 1))


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """The network, with random weights, if the factor between image and latents fits the size."""
    from diffusers import AutoencoderKL

    levels = len(config.channels)
    if config.size % config.factor:
        raise InputError(
            f"size {config.size} is not divisible by {config.factor}; choose another size."
        )
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=16,
        sample_size=config.size,
        mid_block_add_attention=False,
    )


def images_at_once(shape: Sequence[int]) -> int:
    """How many of some images ``(…, C, H, W)`` to encode together."""
    return max(1, ENCODED // math.prod(shape[-3:]))


def take_over(
    model: AutoencoderKL, start: AutoencoderKL, config: AutoencoderConfig, images: Tensor
) -> None:
    """Give ``model`` the weights of ``start``, for its latents' first principal directions.

    For latents c of ``start``, with mean m and principal directions in the rows of V, the new ones
    are V c, and the decoder gets Vᵀ V c + (I − Vᵀ V) m.

    Args:
        images: ``(n, 3, S, S)`` on [-1, 1], that the directions are those of.

    Raises:
        InputError: the two do not have the same widths, or ``start`` has fewer latent channels.
    """
    widths, channels = tuple(start.config.block_out_channels), start.config.latent_channels
    count = config.latent_channels
    if widths != config.channels or channels < count:
        raise InputError(
            f"the autoencoder to start from has widths {widths} and {channels} latent channels, "
            f"and {config.channels} and {count} are wanted; start from another."
        )
    with torch.no_grad():
        codes = start.encode(images).latent_dist.mode().transpose(0, 1).flatten(1)
    directions = torch.linalg.eigh(torch.cov(codes))[1].T.flip(0)[:count]
    weights = dict(start.state_dict())
    # The encoder's last two layers become one, and the decoder's first two.
    nothing = torch.zeros_like(directions)
    rotation = torch.cat(
        [
            torch.cat([directions, nothing], 1),  # of the means
            torch.cat([nothing, directions.square()], 1),  # of the logarithmic variances
        ]
    )
    both = rotation @ weights["quant_conv.weight"].flatten(1)
    shift = rotation @ weights["quant_conv.bias"]
    weights["encoder.conv_out.weight"] = torch.einsum(
        "ij,jkhw->ikhw", both, weights["encoder.conv_out.weight"]
    )
    weights["encoder.conv_out.bias"] = both @ weights["encoder.conv_out.bias"] + shift
    weights["quant_conv.weight"] = torch.eye(2 * count).view(2 * count, 2 * count, 1, 1)
    weights["quant_conv.bias"] = torch.zeros(2 * count)
    mix = weights["post_quant_conv.weight"].flatten(1)
    mean = codes.mean(1)
    constant = weights["post_quant_conv.bias"] + mix @ (mean - directions.T @ (directions @ mean))
    into, first = mix @ directions.T, weights["decoder.conv_in.weight"]
    weights["post_quant_conv.weight"] = torch.eye(count).view(count, count, 1, 1)
    weights["post_quant_conv.bias"] = torch.linalg.pinv(into) @ constant
    weights["decoder.conv_in.weight"] = torch.einsum("ijhw,jk->ikhw", first, into)
    rest = constant - into @ weights["post_quant_conv.bias"]
    weights["decoder.conv_in.bias"] = weights["decoder.conv_in.bias"] + first.sum((2, 3)) @ rest
    model.load_state_dict(weights)


class AutoencoderRun(Run):
    """Training of the autoencoder on images in bytes ``(N, 3, S, S)``.

    Args:
        init: an autoencoder to start from, of the same widths.
    """

    watched = ("root-mean-square error of a reconstruction",)

    def __init__(
        self,
        config: AutoencoderConfig,
        images: Pictures,
        held_out: Tensor,
        accelerator: Accelerator,
        init: AutoencoderKL | None = None,
    ) -> None:
        with seeded_weights(config.seed):
            self.model = build_autoencoder(config)
        if init is not None:
            take_over(self.model, init, config, as_floats(images[:LOOKED_AT]))
        super().__init__(config, self.model, images, accelerator)
        self.images, self.held_out, self.kl = images, held_out, config.kl

    def loss(self) -> Tensor:
        clean = flipped_at_random(self.images, self.config.batch, self.generator)
        clean = clean.to(self.accelerator.device)
        code = self.model.encode(clean).latent_dist
        noise = torch.randn(code.mean.shape, generator=self.generator).to(code.mean)
        decoded = self.model.decode(code.mean + code.std * noise, return_dict=False)[0]
        divergence = code.kl().mean() / code.mean[0].numel()
        loss: Tensor = (decoded.float() - clean).abs().mean() + self.kl * divergence
        return loss

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images in bytes, encoded and decoded, on [-1, 1]."""
        clean = from_uint8(images).to(self.accelerator.device)
        parts = [
            self.model.decode(self.model.encode(x).latent_dist.mode(), return_dict=False)[0]
            for x in torch.split(clean, images_at_once(clean.shape))
        ]
        return torch.cat(parts).clamp(-1, 1).cpu()

    def errors(self) -> list[float]:
        images = self.held_out[: images_at_once(self.held_out.shape)][:64]
        return [(self.reconstruct(images) - from_uint8(images)).square().mean().sqrt().item()]

    def pictures(self) -> Tensor:
        some = self.held_out[:8]
        return image_grid(torch.cat([from_uint8(some), self.reconstruct(some)]), columns=8)

    def write(self, out: Path) -> None:
        """Nothing: there is no prior yet, and the checkpoint has all that the next run needs."""
