"""Operators that commute with shifts, by one pixel or by a block, under a circular boundary.

Cut the image into the k² polyphase components x_p of its k × k blocks. The measurement is then a
sum of circular convolutions with them, and in the Fourier domain of the coarse grid

    F y(ω) = Σ_p g_p(ω) F x_p(ω):

one direction g*(ω) of k² dimensions is seen at each frequency, s(ω) = ‖g(ω)‖ is its singular value,
and a Householder reflection completes it to a basis. The components mix the k² frequencies that
alias to ω, but are real: F x_p(−ω) = F x_p(ω)*, so that the whole basis can be made real, too.
With k = 1 this is a convolution, and s the modulus of its transfer function.

The real basis is that of the discrete Hartley transform, Re F(ω) − Im F(ω). It holds the unitary
DFT of a real image in as many real numbers as there are pixels, and is orthonormal. A filter that
is even in ω, such as a function of |F(ω)|, multiplies both alike.
Source: Bracewell, "Discrete Hartley transform" (1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import pad

from diffsplit.operators.spectrum import Spectrum, without_rounding
from diffsplit.operators.tensors import Constants

__all__ = ["BlockMeanSpectrum", "FourierSpectrum", "from_half", "merge", "split", "to_half"]


class FourierSpectrum(Spectrum):
    """The decomposition of an operator whose ``stride`` is k, read off its first row.

    Coefficients are ``(C, k², H/k, W/k)``: the first of every k² is measured, the others are the
    null space.

    Args:
        row: Aᵀe for the first pixel of each channel, ``(C, H, W)`` in float64.
        shape_in: ``(C, H, W)``.
        shape_out: ``(C, H/k, W/k)``.
    """

    def __init__(self, row: Tensor, shape_in: Sequence[int], shape_out: Sequence[int]) -> None:
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        channels, height, width = self.shape_out
        self._stride = stride = self.shape_in[1] // height
        self.shape = (channels, stride**2, height, width)
        self._grid = height, width
        device, row = row.device, row.cpu()
        if bool((row == row[:1]).all()):  # one kernel for all channels
            row = row[:1]
        # A real row, read backwards in space: its transform is g*, the seen direction itself.
        seen = _hermitian(rfft2(split(row[:, None], stride)[:, 0]), width)
        s = without_rounding(seen.abs().square().sum(1, keepdim=True).sqrt())
        seen = torch.where(s > 0, seen / s, torch.zeros_like(seen))
        w, phase = _reflector(seen)
        u = phase.conj() * (s > 0)
        self._constants = Constants(w=w, u=u if stride == 1 else -u)
        # s is even in ω, so that its other half is a mirror image.
        s = pad(torch.cat([s, _right(s, width)], -1), (0, 0, 0, 0, 0, stride**2 - 1))
        self.singular_values = s.to(device)

    def _rotate(self, z: Tensor) -> Tensor:
        return z if self._stride == 1 else _reflect(z, self._constants.like("w", z))

    def _analyze(self, x: Tensor) -> Tensor:
        z = rfft2(split(x, self._stride), norm="ortho")
        return from_half(self._rotate(z), self._grid[1])

    def _synthesize(self, c: Tensor) -> Tensor:
        z = self._rotate(to_half(c))
        return merge(irfft2(z, self._grid, norm="ortho"), self._stride)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        z = rfft2(y.unsqueeze(2), norm="ortho")
        c = from_half(z * self._constants.like("u", z).conj(), self._grid[1])
        return pad(c, (0, 0, 0, 0, 0, self._stride**2 - 1))

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        z = to_half(c[:, :, :1])
        y: Tensor = irfft2(z * self._constants.like("u", z), self._grid, norm="ortho")
        return y.squeeze(2)


class BlockMeanSpectrum(Spectrum):
    """The mean of every block of k × k pixels: s = 1/k, or 0.

    Coefficients are ``(C, k², H/k, W/k)``; the first of each block is measured.

    Args:
        shape_in: ``(C, H, W)``.
        factor: k.
        device: of the operator.
    """

    separable = True

    def __init__(
        self, shape_in: Sequence[int], factor: int, device: torch.device | None = None
    ) -> None:
        channels, height, width = self.shape_in = tuple(shape_in)
        self.shape_out = (channels, height // factor, width // factor)
        self.shape = (channels, factor**2, *self.shape_out[1:])
        self._factor = factor
        # I − w wᵀ takes the seen direction a = (1, …, 1)/k to e₁, with w along a − e₁.
        w = torch.full((factor**2, 1, 1), 1 / factor, dtype=torch.float64)
        w[0] -= 1
        if factor > 1:
            w *= math.sqrt(2) / w.norm()
        self._constants = Constants(w=w)
        self.singular_values = torch.zeros(1, factor**2, 1, 1, dtype=torch.float64, device=device)
        self.singular_values[:, 0] = 1 / factor

    def _analyze(self, x: Tensor) -> Tensor:
        return _reflect(split(x, self._factor), self._constants.like("w", x))

    def _synthesize(self, c: Tensor) -> Tensor:
        return merge(_reflect(c, self._constants.like("w", c)), self._factor)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return pad(y.unsqueeze(2), (0, 0, 0, 0, 0, self._factor**2 - 1))

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return c[:, :, 0]


def split(x: Tensor, factor: int) -> Tensor:
    """``(B, C, H, W)`` to polyphase components ``(B, C, factor², H/factor, W/factor)``.

    One copy: `torch.nn.functional.pixel_unshuffle` takes three times as long on the CPU.
    """
    b, c, height, width = x.shape
    h, w = height // factor, width // factor
    blocks = x.reshape(b, c, h, factor, w, factor).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(b, c, factor * factor, h, w)


def merge(x: Tensor, factor: int) -> Tensor:
    """The inverse of `split`."""
    b, c, _, h, w = x.shape
    blocks = x.reshape(b, c, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(b, c, h * factor, w * factor)


def _reflector(direction: Tensor) -> tuple[Tensor, Tensor]:
    """w of a Householder reflection R = I − w wᴴ, and φ, with R a = −φ e₁ for ``direction`` a.

    a is complex, ``(C, k², …)``, of length 1 along k² (or 0, where any R will do), and φ the phase
    of its first coordinate. The sign avoids cancellation.
    """
    first, size = direction[:, :1], direction[:, :1].abs()
    phase = torch.where(size > 0, first / size, torch.ones_like(first))
    w = torch.cat([first + phase, direction[:, 1:]], 1)
    return w * (2 / w.abs().square().sum(1, keepdim=True)).sqrt(), phase


def _reflect(x: Tensor, w: Tensor) -> Tensor:
    """(I − w wᴴ) x for ``(B, C, k², …)``: its own inverse, and orthonormal or unitary."""
    return x - w * (w.conj() * x).sum(2, keepdim=True)


def from_half(z: Tensor, width: int) -> Tensor:
    """The half spectrum of a real image, ``(…, h, width // 2 + 1)``, to reals ``(…, h, width)``."""
    return torch.cat([z.real - z.imag, _right(z.real + z.imag, width)], -1)


def to_half(c: Tensor) -> Tensor:
    """The inverse of `from_half`: every real ``c`` belongs to the spectrum of a real image."""
    width = c.shape[-1]
    half = width // 2 + 1
    here, mirrored = c[..., :half], c[..., width - half + 1 :].flip(-1)
    there = torch.cat([c[..., :1], mirrored], -1).flip(-2).roll(1, -2)  # c(−ω)
    return torch.complex(here + there, there - here) / 2


def _right(half: Tensor, width: int) -> Tensor:
    """What a half spectrum holds at −ω, for the columns that are missing from it."""
    return half[..., 1 : (width + 1) // 2].flip(-2, -1).roll(1, -2)


def _hermitian(z: Tensor, width: int) -> Tensor:
    """A half spectrum of a real image, with F(−ω) = F(ω)* exact where both are in it.

    Rounding breaks the symmetry, and the phase of a coefficient near zero would show it.
    """
    z = z.clone()
    for column in {0, width // 2} if width % 2 == 0 else {0}:
        values = z[..., column]
        z[..., column] = (values + values.flip(-1).roll(1, -1).conj()) / 2
    return z
