"""The two-dimensional cosine transform as two matrix products, and moments of its coefficients.

At a few hundred points a side, two products with a dense matrix are faster than an FFT.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.checks import check_batch

__all__ = ["cosine_matrix", "dct2", "idct2", "moments", "rotated"]

AT_ONCE = 16
"""Images that are transformed together."""


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # else the matrix could never meet a gradient later
def cosine_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II of n points as a matrix ``(n, n)``; row k is frequency k."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k[:, None] * (k + 0.5))
    matrix[0] = math.sqrt(1 / n)
    return matrix.to(device, dtype)


def dct2(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last two dimensions of ``x``."""
    down, across = (cosine_matrix(n, x.dtype, x.device) for n in x.shape[-2:])
    with torch.autocast(x.device.type, enabled=False):  # bf16 has too few digits for low noise
        return down @ x @ across.T


def idct2(z: Tensor) -> Tensor:
    """The inverse, and transpose, of `dct2`."""
    down, across = (cosine_matrix(n, z.dtype, z.device) for n in z.shape[-2:])
    with torch.autocast(z.device.type, enabled=False):
        return down.T @ z @ across


def rotated(x: Tensor, matrix: Tensor) -> Tensor:
    """The channels of ``x`` ``(…, C, H, W)`` multiplied by a matrix ``(C, C)``."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("ij,...jhw->...ihw", matrix, x)


def moments(images: Tensor | Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean ``(C, H, W)`` and covariance of the channels ``(C, C, H, W)`` of each DCT coefficient.

    A mirror image has the same coefficients, those of odd horizontal frequencies with the other
    sign. So mirror images leave second moments as they are and make the mean of odd frequencies 0.

    Args:
        images: ``(n, C, H, W)`` on [-1, 1], or an iterable of such batches, read once.

    Raises:
        InputError: fewer than two images, of different shapes, or not floating-point.
    """
    batches = torch.split(images, AT_ONCE) if isinstance(images, Tensor) and images.ndim else images
    if not isinstance(batches, Iterable):
        raise InputError(f"images to fit are a tensor or batches of it, not {type(images)}.")
    shape: Sequence[int] = ()
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or batch.numel() == 0:
            raise InputError("images to fit are batches of shape (n, C, H, W).")
        shape = shape or batch.shape[1:]
        check_batch(batch, shape)
        for part in torch.split(batch, AT_ONCE):
            z = dct2(part.float() if part.dtype.itemsize < 4 else part)
            total = total + z.sum(0, dtype=torch.float64).cpu()
            products = products + torch.einsum("bihw,bjhw->ijhw", z, z).double().cpu()
            count += len(part)
    if count < 2:
        raise InputError(f"a Gaussian is fitted to two images or more, not {count}.")
    mean = total / count
    mean[..., 1::2] = 0
    covariance = products / count - mean.unsqueeze(0) * mean.unsqueeze(1)
    covariance[..., ::2] *= count / (count - 1)  # their mean was estimated
    return mean, covariance
