"""A small KL autoencoder (Rombach et al. 2022, Sec. 3.1), without their adversarial part.

    minimize  E ‖D(z) − x‖₁/n + w · KL(q(z|x) ‖ N(0, I))/m,    z ~ q(z|x) = N(E(x), s(x)²)

for n entries of an image and m of its latents. The divergence keeps latents bounded and smooth, so
that a small denoiser can learn them; w is too little to cost detail.
"""

from __future__ import annotations

import math
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
from diffsplit.training.pictures import Pictures
from diffsplit.training.run import Run, seeded_weights

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import AutoencoderKL

__all__ = ["AutoencoderConfig", "AutoencoderRun", "build_autoencoder"]


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


class AutoencoderRun(Run):
    """Training of the autoencoder on images in bytes ``(N, 3, S, S)``."""

    watched = ("root-mean-square error of a reconstruction",)

    def __init__(
        self,
        config: AutoencoderConfig,
        images: Pictures,
        held_out: Tensor,
        accelerator: Accelerator,
    ) -> None:
        with seeded_weights(config.seed):
            self.model = build_autoencoder(config)
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
            for x in torch.split(clean, 64)
        ]
        return torch.cat(parts).clamp(-1, 1).cpu()

    def errors(self) -> list[float]:
        images = self.held_out[:64]
        return [(self.reconstruct(images) - from_uint8(images)).square().mean().sqrt().item()]

    def pictures(self) -> Tensor:
        some = self.held_out[:8]
        return image_grid(torch.cat([from_uint8(some), self.reconstruct(some)]), columns=8)

    def write(self, out: Path) -> None:
        """Nothing: there is no prior yet, and the checkpoint has all that the next run needs."""
