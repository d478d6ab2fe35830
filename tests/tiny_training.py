"""Recipes of the shortest training runs, and pictures for them."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffsplit.io.images import save_image
from diffsplit.training import TrainConfig
from diffsplit.training.autoencoder import AutoencoderConfig
from diffsplit.training.distill import DistillConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CODER", "DENOISER", "LICENSE", "SHORT", "TINY", "accelerator", "zip_of_pictures"]

TINY = TrainConfig(size=16, batch=4, channels=(16, 32), checkpoint_minutes=0.0)
"""Of a denoiser of images."""
CODER = AutoencoderConfig(
    size=16, batch=4, images=8, channels=(16, 32), latent_channels=2, checkpoint_minutes=0.0
)
DENOISER = replace(TINY, images=8, patch=1)
"""Of the latents of that autoencoder."""
SHORT = DistillConfig(batch=4, images=8, steps=4, checkpoint_minutes=0.0, channels=(16, 32))
"""Of a consistency model."""
LICENSE = 'CC BY-NC 4.0: "see" # the\nimages'


def accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator(mixed_precision="bf16", cpu=True)


def zip_of_pictures(path: Path, brightness: float = 1.0) -> Path:
    """A zip of 12 smooth random pictures."""
    generator = torch.Generator().manual_seed(0)
    picture = path.parent / "picture.png"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(12):
            coarse = torch.rand((1, 3, 4, 4), generator=generator) * 2 - 1
            image = torch.nn.functional.interpolate(coarse, size=24, mode="bilinear")
            save_image(brightness * (image + 1) - 1, picture)
            archive.write(picture, f"{i:02}.png")
    return path
