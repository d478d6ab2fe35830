"""Training images varied at random, so that a denoiser knows more than its data set's habits.

Faces of one data set are cropped, lit and processed alike, and on those of another the error of a
denoiser can be twice as large. Position, scale, angle, colors, contrast and sharpness are varied by
about as much as data sets of aligned faces differ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

__all__ = ["augmented"]

SCALE, ANGLE, SHIFT = 0.15, 0.12, 0.05
"""Standard deviations: of the log scale, of the angle in radians, of the shift over the side."""
SATURATION, CONTRAST, TINT, BRIGHTNESS = 0.25, 0.15, 0.05, 0.1
"""Standard deviations: of the logarithms of the first three, and of an offset on [-1, 1]."""
BLUR, SHARPENING = (0.7, 2.0), (0.2, 1.7)
"""Unsharp masking: the width of the blur in pixels, and how much of the difference is added."""


def augmented(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A batch in which each image is moved, recolored and sharpened, each with chance ``share``.

    Args:
        x: clean images ``(B, C, H, W)`` on [-1, 1].

    Returns:
        The same shape, on [-1, 1].
    """
    for change in (_moved, _recolored, _sharpened):
        chosen = torch.rand(len(x), generator=generator) < share
        if bool(chosen.any()):
            x = x.clone()
            x[chosen] = change(x[chosen], generator).clamp(-1, 1)
    return x


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Scaled, rotated and shifted; what comes in from outside is a reflection."""
    normal = torch.randn(len(x), 4, generator=generator)
    scale = (SCALE * normal[:, 0]).exp().clamp(0.65, 1.4)
    angle = ANGLE * normal[:, 1]
    # affine_grid counts a side as 2.
    shift = (2 * SHIFT * normal[:, 2:]).clamp(-0.25, 0.25)
    c, s = scale * angle.cos(), scale * angle.sin()
    matrix = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
    theta = torch.cat([matrix, shift.unsqueeze(2)], 2)
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _recolored(x: Tensor, generator: torch.Generator) -> Tensor:
    normal = torch.randn(len(x), 3 + x.shape[1], 1, 1, generator=generator)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (SATURATION * normal[:, 0:1]).exp()
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * (CONTRAST * normal[:, 1:2]).exp()
    return x * (TINT * normal[:, 3:]).exp() + BRIGHTNESS * normal[:, 2:3]


def _sharpened(x: Tensor, generator: torch.Generator) -> Tensor:
    """Unsharp masking with a Gaussian blur of its own for each image."""
    uniform = torch.rand(len(x), 2, generator=generator)
    width = BLUR[0] + (BLUR[1] - BLUR[0]) * uniform[:, :1]
    strength = SHARPENING[0] + (SHARPENING[1] - SHARPENING[0]) * uniform[:, 1].view(-1, 1, 1, 1)
    reach = min(round(3 * BLUR[1]), *(side - 1 for side in x.shape[-2:]))
    offset = torch.arange(-reach, reach + 1)
    kernel = (-(offset**2) / (2 * width**2)).softmax(1)
    planes = pad(x, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    kernels = kernel.repeat_interleave(x.shape[1], 0)[:, None]
    blurred = conv2d(planes, kernels.unsqueeze(2), groups=len(kernels))
    blurred = conv2d(blurred, kernels.unsqueeze(3), groups=len(kernels))
    return x + strength * (x - blurred.view_as(x))
