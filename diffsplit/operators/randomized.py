"""Row-orthogonal compressed sensing in O(N) memory: a fast transform between random choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.checks import choice, integer, seed_of, shape_of
from diffsplit.operators.gram import RandomRows
from diffsplit.operators.spectrum import SelectedRows, Spectrum
from diffsplit.operators.transforms import dct, hadamard, idct

__all__ = ["RandomizedTransform"]

_AT_ONCE = 2**18
"""Entries that are transformed at a time on a CPU: what lies between the steps then stays in cache,
in memory that is used again, where fresh memory costs as much as the transform."""
_DENSE = 64  # up to this odd factor a small matrix is faster than an FFT along a middle axis


class RandomizedTransform(LinearOperator):
    """A = √(N/M) · R T S P, so that A Aᵀ = (N/M) I exactly.

    P permutes all entries of the image, S flips random signs, T is an orthonormal transform, R
    keeps M random rows. Signs alone make each measurement look Gaussian; the permutation also
    makes two of them uncorrelated when the energy of the image is uneven (their covariance over
    the signs is a transform of x², which is smooth for a photograph), and it spreads each row over
    every channel.

    For N = m·2^k with m odd, "hadamard" is T = DCT_m ⊗ H_{2^k}: orthonormal for every N, without
    padding. After Do, Gan, Nguyen and Tran, "Fast and efficient compressive sensing using
    structurally random matrices" (2012).

    Args:
        shape: shape of one image, N entries.
        rows: M, from 1 to N. With the same seed, fewer rows are a subset of more rows.
        seed: from 0 to 2³² − 1.
        transform: "hadamard" (fast) or "dct" (the DCT-II of length N).

    Raises:
        InputError: bad arguments.
    """

    _kind = "randomized"

    def __init__(
        self, shape: Sequence[int], rows: int, seed: int, transform: str = "hadamard"
    ) -> None:
        self.shape_in = shape_of(shape)
        size = self.size_in
        rows = integer(rows, f"the number of rows for {size} unknowns", 1, size)
        self.shape_out = (rows,)
        self.gram = RandomRows(size / rows)
        self.transform = choice(transform, "the transform", ("hadamard", "dct"))
        self.seed = seed_of(seed)
        self._given = {"rows": rows, "seed": self.seed, "transform": transform}
        generator = seeded(self.seed, "RandomizedTransform")
        self._permutation = torch.randperm(size, generator=generator)
        self._inverse = torch.empty_like(self._permutation)
        self._inverse[self._permutation] = torch.arange(size)
        self._signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
        self._signs_of_pixels = self._signs[self._inverse]
        self._rows = torch.randperm(size, generator=generator)[:rows].sort().values

    def _transformed(self, x: Tensor) -> Tensor:
        """T S P x, ``(B, N)``."""
        mixed = x.flatten(1).index_select(1, self._permutation).mul_(self._signs)
        return dct(mixed) if self.transform == "dct" else _mixed_hadamard(mixed)

    def _restored(self, c: Tensor) -> Tensor:
        """The inverse and transpose of `_transformed`."""
        mixed = idct(c) if self.transform == "dct" else _mixed_hadamard(c, True)
        image = mixed.index_select(1, self._inverse).mul_(self._signs_of_pixels)
        return image.reshape(-1, *self.shape_in)

    def _apply(self, x: Tensor) -> Tensor:
        gain = math.sqrt(self.gram.mean)
        parts = [
            self._transformed(part).index_select(1, self._rows).mul_(gain)
            for part in torch.split(x, self._images_at_once(x))
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _adjoint(self, y: Tensor) -> Tensor:
        at_once = self._images_at_once(y)
        if len(y) <= at_once:
            return self._from_measurements(y)
        images = y.new_empty(len(y), *self.shape_in)
        for image, part in zip(torch.split(images, at_once), torch.split(y, at_once), strict=True):
            image.copy_(self._from_measurements(part))
        return images

    def _from_measurements(self, y: Tensor) -> Tensor:
        spectrum = y.new_zeros(len(y), self.size_in)
        return self._restored(
            spectrum.index_add_(1, self._rows, y, alpha=math.sqrt(self.gram.mean))
        )

    def _images_at_once(self, like: Tensor) -> int:
        whole = like.device.type != "cpu"
        return max(1, len(like) if whole else _AT_ONCE // self.size_in)

    def _make_spectrum(self) -> Spectrum:
        gain = math.sqrt(self.gram.mean)
        return SelectedRows(
            self.shape_in, self.shape_out, self._rows, gain, self._transformed, self._restored
        )


def _mixed_hadamard(x: Tensor, transposed: bool = False) -> Tensor:
    """(DCT_m ⊗ H_{2^k}) x, or its transpose, for ``(B, m·2^k)`` with m odd."""
    size = x.shape[1]
    power = size & -size
    odd = size // power
    spectrum = hadamard(x.reshape(-1, odd, power))
    if 1 < odd <= _DENSE:
        spectrum = _dct_matrix(odd, transposed, x.dtype, x.device) @ spectrum
    elif odd > 1:
        spectrum = (idct if transposed else dct)(spectrum.mT).mT
    return spectrum.reshape(-1, size)


@lru_cache(maxsize=32)
def _dct_matrix(n: int, transposed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    rows = dct(torch.eye(n, dtype=torch.float64))  # row j is the transform of e_j: the transpose
    return (rows if transposed else rows.T.contiguous()).to(device, dtype)
