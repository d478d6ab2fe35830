"""Kernels that are given, checked, and Gaussian ones."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators.checks import brief, integer, real

__all__ = ["checked_kernel", "decoded_kernel", "gaussian_kernel"]


def gaussian_kernel(size: int, std: float) -> Tensor:
    """A Gaussian ``(1, size, size)`` of sum 1 in float64, around the index size // 2.

    Raises:
        InputError: the standard deviation, in pixels, is not above 0.
    """
    std = real(std, "the standard deviation of a Gaussian blur, in pixels,")
    if not std > 0:
        raise InputError(f"the standard deviation of a Gaussian blur is above 0, not {std}.")
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
    length = 4 * math.ceil(4 * math.prod(size) / 3)
    if not isinstance(text, str) or len(text) != length:
        raise InputError(f"a kernel of shape {size} is {length} characters of base64.")
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
        return torch.from_numpy(values).reshape(size)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"a kernel of shape {size} is no valid base64.") from error
