"""Half spectra of real images as real numbers: the discrete Hartley transform.

The unitary DFT F of a real image has F(−k) = F(k)*. Its Hartley transform, Re F(k) − Im F(k), holds
the same in as many real numbers as there are pixels, and is orthonormal. A filter that is even in
k, such as a function of |F(k)|, multiplies both alike.
Source: Bracewell, "Discrete Hartley transform" (1983).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["from_half", "hermitian", "mirrored", "to_half"]


def _reversed(x: Tensor) -> Tensor:
    """x(−k) for a full spectrum x(k)."""
    return x.flip(-2, -1).roll((1, 1), (-2, -1))


def _right(half: Tensor, width: int) -> Tensor:
    """What a half spectrum holds at −k, for the columns that are missing from it."""
    return half[..., 1 : (width + 1) // 2].flip(-2, -1).roll(1, -2)


def from_half(z: Tensor, width: int) -> Tensor:
    """The half spectrum of a real image, ``(…, h, width // 2 + 1)``, to reals ``(…, h, width)``."""
    return torch.cat([z.real - z.imag, _right(z.real + z.imag, width)], -1)


def to_half(c: Tensor) -> Tensor:
    """The inverse of `from_half`: every real ``c`` belongs to the spectrum of a real image."""
    half = c.shape[-1] // 2 + 1
    here, there = c[..., :half], _reversed(c)[..., :half]
    return torch.complex(here + there, there - here) / 2


def mirrored(s: Tensor, width: int) -> Tensor:
    """An even function of k, such as |F(k)|, from its half to ``width`` columns."""
    return torch.cat([s, _right(s, width)], -1)


def hermitian(z: Tensor, width: int) -> Tensor:
    """A half spectrum of a real image, with F(−k) = F(k)* exact where both are in it.

    Rounding breaks the symmetry, and the phase of a coefficient near zero would show it.
    """
    z = z.clone()
    for column in {0, width // 2} if width % 2 == 0 else {0}:
        values = z[..., column]
        z[..., column] = (values + values.flip(-1).roll(1, -1).conj()) / 2
    return z
