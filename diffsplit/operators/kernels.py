"""Kernels of a blur: given ones, checked; Gaussian ones; camera shake.

Camera shake is a random trajectory of the camera during the exposure, after Boracchi and Foi,
"Modeling the performance of image restoration from motion blur" (2012): a particle of constant
speed, whose velocity is carried on by inertia, disturbed by white noise, pulled back to the start,
and now and then thrown back by an impulse.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsplit.arguments import TINY, brief
from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.checks import decoded, integer, real, seed_of

__all__ = ["checked_kernel", "decoded_kernel", "gaussian_kernel", "motion_kernel"]

_STEPS = 2000
_NOISE = 4.0  # standard deviation of the turns of the direction during the exposure, in radians
_PULL = 20.0  # towards the start, per unit of distance; the path is of length 1
_IMPULSES = 5.0  # expected number of them
_SPREAD = 1.0  # of the direction after an impulse, in radians to either side of the way back


def gaussian_kernel(size: int, std: float) -> Tensor:
    """A Gaussian ``(1, size, size)`` of sum 1 in float64, around the index size // 2.

    Raises:
        InputError: the standard deviation, in pixels, is not above 0.
    """
    std = real(std, "the standard deviation of a Gaussian blur, in pixels,", TINY)
    side = (-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / std).square()).exp()
    side = side / side.sum()
    return torch.outer(side, side)[None]


def checked_kernel(kernel: Any, shape: tuple[int, ...]) -> Tensor:
    """A kernel for images ``(C, H, W)`` as ``(1 or C, h, w)``: float32 values, in float64.

    Raises:
        InputError: no floats ``(h, w)`` or ``(C, h, w)``, larger than the image, not finite, or
            with a sum of magnitudes outside 1e-18 … 1e18.
    """
    try:
        given = torch.as_tensor(kernel)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"a kernel is a tensor (h, w) of floats, not {brief(kernel)}.") from error
    fits = given.ndim in (2, 3) and given.is_floating_point() and given.numel() > 0
    if not fits or (given.ndim == 3 and len(given) not in (1, shape[0])):
        raise InputError(
            f"a kernel for images of shape {shape} is a tensor of floats (h, w) or "
            f"({shape[0]}, h, w), not {given.dtype} {tuple(given.shape)}."
        )
    if given.shape[-2] > shape[1] or given.shape[-1] > shape[2]:
        raise InputError(
            f"a kernel of {tuple(given.shape[-2:])} pixels is larger than images of {shape[1:]}; "
            "crop the kernel."
        )
    values: Tensor = given.detach().cpu().float().double()
    values = values[None] if values.ndim == 2 else values
    if not all(1e-18 < total < 1e18 for total in values.abs().sum((1, 2)).tolist()):
        raise InputError(
            "a kernel is all zero, holds NaN or infinity, or has a sum of magnitudes outside "
            "1e-18 … 1e18; scale it, usually to the sum 1."
        )
    return values


def decoded_kernel(text: Any, size: Any, shape: tuple[int, ...]) -> Tensor:
    """The kernel of a `Blur.config`: float32 numbers, lowest byte first, in base64.

    Raises:
        InputError: the size is none or larger than the image, or the text does not fit it.
    """
    if not isinstance(size, list) or len(size) not in (2, 3):
        raise InputError("the shape of a kernel is the list [h, w] or [C, h, w].")
    limits = (shape[0], *shape[1:])[-len(size) :]
    for number, limit in zip(size, limits, strict=True):
        integer(number, f"every size of a kernel for images of shape {shape}", 1, limit)
    data = decoded(text, 4 * math.prod(size), f"a kernel of shape {size}")
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(size)


def motion_kernel(size: int, intensity: float, seed: int) -> Tensor:
    """A kernel ``(size, size)`` in float64: nonnegative, of sum 1, with its centroid in the center.

    Args:
        size: pixels of a side, 1 to 4096.
        intensity: from 0, a straight line, to 1, violent shaking.
        seed: from 0 to 2³² − 1.

    Raises:
        InputError: bad arguments.
    """
    size = integer(size, "the size of a motion kernel", 1, 4096)
    intensity = real(intensity, "the intensity of camera shake", 0, 1)
    generator = seeded(seed_of(seed), "motion_kernel")
    share = 0.5 + 0.3 * float(torch.rand((), generator=generator, dtype=torch.float64))
    # The more a path turns, the longer it must be for a blur of about the same extent.
    path = _trajectory(intensity, generator) * size * share * (1 + 2 * intensity)
    path = path - path.mean()
    reach, room = float(torch.view_as_real(path).abs().max()), (size - 1) // 2
    return _rasterized(path * min(1.0, room / reach), size)


def _trajectory(intensity: float, generator: torch.Generator) -> Tensor:
    """Positions ``(_STEPS + 1,)`` in the complex plane, at equal times, of a path of length 1."""
    uniform = torch.rand(2 * _STEPS + 1, generator=generator, dtype=torch.float64).tolist()
    normal = torch.randn(2 * _STEPS, generator=generator, dtype=torch.float64).tolist()
    step = 1 / _STEPS
    velocity = cmath.rect(1, 2 * math.pi * uniform[-1])
    path = [0j]
    for i in range(_STEPS):
        noise = complex(normal[2 * i], normal[2 * i + 1])
        force = _NOISE * math.sqrt(step) * noise - _PULL * step * path[-1]
        velocity += intensity * force
        if uniform[2 * i] < _IMPULSES * intensity * step:
            velocity *= -cmath.rect(1, _SPREAD * (2 * uniform[2 * i + 1] - 1))
        velocity /= abs(velocity)
        path.append(path[-1] + step * velocity)
    return torch.tensor(path, dtype=torch.complex128)


def _rasterized(path: Tensor, size: int) -> Tensor:
    """Time spent at each pixel; a point between four pixels counts for them bilinearly."""
    pixels = torch.arange(size) - size // 2
    rows, columns = (
        (1 - (position[:, None] - pixels).abs()).clamp(min=0) for position in (path.imag, path.real)
    )
    kernel = rows.T @ columns
    return kernel / kernel.sum()
