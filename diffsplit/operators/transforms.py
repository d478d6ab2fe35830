"""Fast orthonormal transforms of the last dimension: Hadamard (powers of two) and cosine.

The Hadamard matrix of 2^k points is a Kronecker product of smaller ones. Multiplying by dense
factors of at most 64×64 takes three matrix products at 65,536 points, where the butterfly takes
sixteen passes over memory.

The cosine transform (DCT-II) follows Makhoul, "A fast cosine transform in one and two dimensions"
(1980): one real FFT of the same length, of the even entries followed by the odd ones backwards.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["dct", "hadamard", "idct"]

_LARGEST_FACTOR = 6  # 64×64 blocks: large enough for matrix products, small enough for few flops


@lru_cache(maxsize=64)
def _hadamard_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.kron(pair, matrix)
    return (matrix / math.sqrt(n)).to(device, dtype)


@lru_cache(maxsize=32)
def _twiddles(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(−iπk/2n) for k = 0 … n/2, with the factors that make the transform orthonormal."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return torch.polar(scale, -math.pi * k / (2 * n)).to(device, complex_dtype)


def hadamard(x: Tensor) -> Tensor:
    """Walsh–Hadamard transform, in the natural order and orthonormal: it is its own inverse.

    Args:
        x: floats ``(…, n)``, n a power of two.

    Raises:
        InputError: n is no power of two.
    """
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise InputError(
            f"the Hadamard transform takes a power of two, not {n} entries; use the dct instead."
        )
    shape, rest, exponent = x.shape, n, n.bit_length() - 1
    for stages in range(-(-exponent // _LARGEST_FACTOR), 0, -1):
        bits = -(-exponent // stages)
        exponent, rest = exponent - bits, rest >> bits
        matrix = _hadamard_matrix(1 << bits, x.dtype, x.device)
        if rest == 1:  # one flat product is faster than many with a single column
            x = x.reshape(-1, 1 << bits) @ matrix
        else:
            x = matrix @ x.reshape(-1, 1 << bits, rest)
    return x.reshape(shape)


def dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II of any length: ``(…, n)`` to ``(…, n)``.

    Half precision is computed in float32.
    """
    n = x.shape[-1]
    work = x if x.dtype == torch.float64 else x.float()
    folded = torch.cat([work[..., ::2], work[..., 1::2].flip(-1)], -1)
    spectrum = torch.fft.rfft(folded) * _twiddles(n, work.dtype, work.device)
    # Entry n − k is minus the imaginary part of entry k.
    high = spectrum.imag[..., 1 : (n + 1) // 2].flip(-1).neg()
    return torch.cat([spectrum.real, high], -1).to(x.dtype)


def idct(x: Tensor) -> Tensor:
    """The inverse, and transpose, of `dct`."""
    n = x.shape[-1]
    work = x if x.dtype == torch.float64 else x.float()
    low, high = work[..., : n // 2 + 1], work[..., n // 2 + 1 :]
    middle = [low[..., -1:]] if n % 2 == 0 else []
    mirrored = torch.cat([torch.zeros_like(low[..., :1]), high.flip(-1), *middle], -1)
    twiddles = _twiddles(n, work.dtype, work.device)
    inverse = twiddles.conj() / twiddles.abs().square()
    folded = torch.fft.irfft(torch.complex(low, -mirrored) * inverse, n=n)
    result = torch.empty_like(folded)
    split = (n + 1) // 2
    result[..., ::2] = folded[..., :split]
    result[..., 1::2] = folded[..., split:].flip(-1)
    return result.to(x.dtype)
