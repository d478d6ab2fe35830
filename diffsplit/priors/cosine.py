"""The two-dimensional cosine transform as two matrix products, and rotations of the colors.

At a few hundred points a side, two products with a dense matrix are faster than an FFT.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["cosine_matrix", "dct2", "idct2", "rotated"]


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
