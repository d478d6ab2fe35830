"""Images on [0, 1], as other libraries keep them, and ours on [-1, 1]: the one conversion.

With x = 2 u − 1 for an image u on [0, 1], measurements y = A u + σ n become

    y' = 2 y − A 1 = A x + 2 σ n,

so that noise levels double, of measurements as of images.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["SCALE", "UnitDenoiser", "from_unit", "measurements_from_unit", "to_unit"]

SCALE = 2.0
"""By which noise levels grow from [0, 1] to [-1, 1]."""


def from_unit(u: Tensor) -> Tensor:
    """An image on [0, 1] as one on [-1, 1]."""
    return SCALE * u - 1


def to_unit(x: Tensor) -> Tensor:
    """An image on [-1, 1] as one on [0, 1]."""
    return (x + 1) / SCALE


def measurements_from_unit(y: Tensor, ones: Tensor) -> Tensor:
    """Measurements of an image on [0, 1] as those of the same image on [-1, 1].

    Args:
        y: ``(B, *shape_out)``.
        ones: A 1, what the operator gives for an image of ones.
    """
    return SCALE * y - ones


class UnitDenoiser(nn.Module):
    """A denoiser of images on [0, 1] for images and noise levels on [-1, 1].

    Args:
        denoiser: from images ``(B, C, H, W)`` and σ ``(B,)`` to clean images; a network moves with
            this module.
    """

    def __init__(self, denoiser: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return from_unit(self.denoiser(to_unit(x), sigma / SCALE))
