"""Networks with random weights, as small as diffusers builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel, VQModel

    from diffsplit.priors import EDMPrior

__all__ = ["tiny_edm", "tiny_kl", "tiny_unet", "tiny_vq"]


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


def tiny_vq(scaling: float) -> VQModel:
    """The same with 3 channels and a codebook."""
    from diffusers import VQModel

    torch.manual_seed(0)
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=3,
        num_vq_embeddings=16,
        norm_num_groups=4,
        scaling_factor=scaling,
    )
    return model.eval().requires_grad_(False)


def tiny_edm() -> EDMPrior:
    """A prior of our own kind for 3×16×16 images, with an error curve."""
    from diffsplit.priors import EDMPrior, ErrorCurve
    from diffsplit.priors.edm import build_unet

    torch.manual_seed(1)
    unet = build_unet(16, 2, (16, 32)).eval().requires_grad_(False)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    curve = ErrorCurve((0.01, 1.0, 100.0), (1e-4, 0.05, 0.25))
    return EDMPrior(unet, sigma_data=0.5, patch=2, curve=curve, facts={"name": "tiny"})
