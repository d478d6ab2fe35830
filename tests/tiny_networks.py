"""Networks with random weights, as small as diffusers builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel

__all__ = ["tiny_kl", "tiny_unet"]


def tiny_unet(channels: int, size: int, **options: Any) -> UNet2DModel:
    """A denoiser of ``(N, channels, size, size)``."""
    from diffusers import UNet2DModel

    torch.manual_seed(channels)
    model = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        **options,
    )
    return model.eval().requires_grad_(False)


def tiny_kl(channels: int = 4, **options: Any) -> AutoencoderKL:
    """From images ``(N, 3, 16, 16)`` to latents ``(N, channels, 8, 8)`` and back."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **options,
    )
    return model.eval().requires_grad_(False)
