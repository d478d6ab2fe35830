"""The tasks of image restoration: what the DCDP paper measures at 256×256, at any size."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffsplit.operators.base import LinearOperator

__all__ = ["Restoration", "restoration_operator"]

PAPER_SIZE = 256
BOX, KERNEL, STD = 100, 61, 3.0
"""In pixels of the paper's images."""


class Restoration(str, Enum):
    """Tasks that `DCDP.preset` knows."""

    inpaint_box = "inpaint-box"
    inpaint_random = "inpaint-random"
    super_resolution = "super-resolution"
    gaussian_deblur = "gaussian-deblur"
    motion_deblur = "motion-deblur"
    denoise = "denoise"


def restoration_operator(
    task: Restoration, shape: tuple[int, int, int], fraction: float, seed: int
) -> LinearOperator:
    """A box in the middle, random pixels, ×4 bicubic reduction, a blur, or the image itself.

    Args:
        shape: of the image, ``(C, H, W)``, square; lengths in pixels go with its side.
        fraction: share of the pixels that "inpaint-random" keeps.
        seed: of these pixels, or of the camera's shake.
    """
    from diffsplit.operators import Blur, Downsample, Identity, PixelMask

    side = shape[-1]
    if task is Restoration.inpaint_box:
        box = max(1, round(BOX * side / PAPER_SIZE))
        return PixelMask.box(shape, (side - box) // 2, (side - box) // 2, box, box)
    if task is Restoration.inpaint_random:
        return PixelMask(shape, fraction=fraction, seed=seed)
    if task is Restoration.super_resolution:
        return Downsample(shape, 4, "bicubic")
    if task is Restoration.denoise:
        return Identity(shape)
    size = 2 * round((KERNEL * side / PAPER_SIZE - 1) / 2) + 1  # odd, so that it has a middle
    if task is Restoration.gaussian_deblur:
        return Blur.gaussian(shape, size, STD * side / PAPER_SIZE)
    return Blur.motion(shape, size, 0.5, seed)
