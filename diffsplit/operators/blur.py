"""Convolution with a kernel, by the fast Fourier transform.

A reflecting boundary continues the image without repeating its edge: the indices −1, −2, … are
1, 2, …
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import pad

from diffsplit.operators.base import PortableOperator
from diffsplit.operators.checks import choice, integer, shape_of
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.kernels import checked_kernel, gaussian_kernel, motion_kernel
from diffsplit.operators.tensors import Constants

__all__ = ["Blur"]


class Blur(PortableOperator):
    """y(i) = Σ_t k(t) x(i − t + c), with the center c at index (h // 2, w // 2) of the kernel.

    Beyond the edges the image goes on at the other side ("circular", which has a spectrum) or as
    its mirror image without repeated edge pixels ("reflect").

    Args:
        shape: ``(C, H, W)``.
        kernel: ``(h, w)`` for all channels or ``(C, h, w)``, h ≤ H, w ≤ W; used as it is, in
            float32 precision.
        boundary: "circular" or "reflect".

    Attributes:
        kernel: ``(1, h, w)`` or ``(C, h, w)``, float64 on the CPU.

    Raises:
        InputError: bad arguments, or a kernel that is all zero or not finite.
    """

    _kind = "blur"

    def __init__(self, shape: Sequence[int], kernel: Tensor, boundary: str = "circular") -> None:
        shape = shape_of(shape, ndim=3)
        kernel = checked_kernel(kernel, shape)
        data = kernel.numpy().astype("<f4").tobytes()
        size = list(kernel.shape if len(kernel) > 1 else kernel.shape[1:])
        given = {"kernel": base64.b64encode(data).decode(), "kernel_shape": size}
        self._keep(shape, kernel, boundary, given)

    @classmethod
    def gaussian(
        cls, shape: Sequence[int], size: int, std: float, boundary: str = "circular"
    ) -> Blur:
        """A Gaussian kernel of sum 1.

        Args:
            shape: ``(C, H, W)``.
            size: pixels of a side of the kernel, up to the smaller side of the image.
            std: standard deviation in pixels, above 0.
            boundary: "circular" or "reflect".

        Raises:
            InputError: bad arguments.
        """
        shape, size = _fitting(shape, size)
        kernel = gaussian_kernel(size, std)
        return cls.__new__(cls)._keep(shape, kernel, boundary, {"size": size, "std": float(std)})

    @classmethod
    def motion(
        cls,
        shape: Sequence[int],
        size: int,
        intensity: float,
        seed: int,
        boundary: str = "circular",
    ) -> Blur:
        """Camera shake, a random curve of sum 1: see `operators.kernels`.

        Args:
            shape: ``(C, H, W)``.
            size: pixels of a side of the kernel, up to the smaller side of the image.
            intensity: from 0, a straight line, to 1, violent shaking.
            seed: from 0 to 2³² − 1.
            boundary: "circular" or "reflect".

        Raises:
            InputError: bad arguments.
        """
        shape, size = _fitting(shape, size)
        kernel = motion_kernel(size, intensity, seed)
        given = {"size": size, "intensity": float(intensity), "seed": int(seed)}
        return cls.__new__(cls)._keep(shape, kernel[None], boundary, given)

    def _keep(
        self, shape: tuple[int, ...], kernel: Tensor, boundary: str, given: dict[str, Any]
    ) -> Blur:
        self.boundary = choice(boundary, "the boundary", ("circular", "reflect"))
        self.shape_in = self.shape_out = shape
        self.kernel, self._given = kernel, {**given, "boundary": boundary}
        _, h, w = kernel.shape
        # Rows (before, after) and columns that the image grows by; the size that is transformed.
        self._pads = [((n - 1) // 2, n // 2) if boundary == "reflect" else (0, 0) for n in (h, w)]
        sides = [side + sum(pads) for side, pads in zip(shape[1:], self._pads, strict=True)]
        if boundary == "reflect":
            sides = [_fast_length(side) for side in sides]
        self._grid = (sides[0], sides[1])
        response = torch.zeros(len(kernel), *self._grid, dtype=torch.float64)
        response[:, :h, :w] = kernel
        response = response.roll((-(h // 2), -(w // 2)), (1, 2))
        self._constants = Constants(transfer=rfft2(response))
        energy = kernel.square().sum((1, 2))
        if boundary == "circular":
            self.stride = 1
            one = bool((kernel != 0).sum((1, 2)).eq(1).all() and (energy == energy[0]).all())
            self.gram = (ScaledIdentity if one else Gram)(float(energy.mean()))
        else:
            self.gram = Gram(_mean_square_of_rows(kernel, shape[1:]))
        return self

    def _convolve(self, x: Tensor, transfer: Tensor) -> Tensor:
        result: Tensor = irfft2(rfft2(x, self._grid) * transfer, self._grid)
        return result

    def _apply(self, x: Tensor) -> Tensor:
        transfer = self._constants.like("transfer", x)
        work = x.to(transfer.dtype.to_real())
        if self.boundary == "circular":
            return self._convolve(work, transfer).to(x.dtype)
        (top, bottom), (left, right) = self._pads
        _, height, width = self.shape_in
        y = self._convolve(pad(work, (left, right, top, bottom), "reflect"), transfer)
        return y[..., top : top + height, left : left + width].to(x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        transfer = self._constants.like("transfer", y).conj()
        work = y.to(transfer.dtype.to_real())
        if self.boundary == "circular":
            return self._convolve(work, transfer).to(y.dtype)
        (top, _), (left, _) = self._pads
        x = self._convolve(pad(work, (left, 0, top, 0)), transfer)
        x = _fold(x, *self._pads[0], self.shape_in[1], dim=-2)
        return _fold(x, *self._pads[1], self.shape_in[2], dim=-1).to(y.dtype)


def _fitting(shape: Sequence[int], size: int) -> tuple[tuple[int, ...], int]:
    shape = shape_of(shape, ndim=3)
    side = min(shape[1:])
    return shape, integer(size, f"the size of a kernel for {side} pixels", 1, side)


def _fast_length(n: int) -> int:
    """The smallest even number ≥ n without prime factors above 5, for which an FFT is fast."""
    n += n % 2
    while pow(30, 30, n):  # n, below 2³⁰, has other factors than 30 = 2 · 3 · 5
        n += 2
    return n


def _fold(x: Tensor, before: int, after: int, size: int, dim: int) -> Tensor:
    """The adjoint of padding by reflection: what lies outside is added to where it came from.

    Args:
        x: at least before + size + after entries along ``dim``; further ones are dropped.
        before: entries that were added in front.
        after: entries that were added behind.
        size: entries of the image.
        dim: the dimension that was padded.
    """
    image = x.narrow(dim, before, size).clone()
    image.narrow(dim, 1, before).add_(x.narrow(dim, 0, before).flip(dim))
    behind = x.narrow(dim, before + size, after).flip(dim)
    image.narrow(dim, size - 1 - after, after).add_(behind)
    return image


def _coincidences(taps: int, size: int) -> Tensor:
    """For how many of ``size`` positions two taps of a kernel fall on the same pixel: (taps, taps).

    At position i the taps t and t' read i + c − t and i + c − t', which are one pixel if their sum
    is 0 or 2 (size − 1), the two mirrors.
    """
    t = torch.arange(taps)
    total, center = t[:, None] + t, taps // 2
    even = (total % 2 == 0) & (t[:, None] != t)
    count = torch.diag(torch.full((taps,), float(size), dtype=torch.float64))
    for position in (total // 2 - center, total // 2 - center + size - 1):
        count += even & (position >= 0) & (position < size)
    return count


def _mean_square_of_rows(kernel: Tensor, sides: Sequence[int]) -> float:
    """tr(A Aᵀ)/M of a convolution under a reflecting boundary, exactly.

    Args:
        kernel: ``(C or 1, h, w)`` in float64.
        sides: (H, W) of the images.
    """
    rows = _coincidences(kernel.shape[1], sides[0])
    columns = _coincidences(kernel.shape[2], sides[1])
    trace = (rows @ kernel @ columns * kernel).sum((1, 2)).mean()
    return float(trace) / (sides[0] * sides[1])
