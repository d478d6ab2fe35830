"""Operators that commute with shifts, by one pixel or by a block, under a circular boundary.

Cut the image into the k² polyphase components x_p of its k × k blocks. The measurement is then a
sum of circular convolutions with them, and in the Fourier domain of the coarse grid

    F y(ω) = Σ_p g_p(ω) F x_p(ω):

one direction g*(ω) of k² dimensions is seen at each frequency, s(ω) = ‖g(ω)‖ is its singular value,
and a Householder reflection completes it to a basis. The components mix the k² frequencies that
alias to ω, but are real: F x_p(−ω) = F x_p(ω)*, so that the whole basis can be made real, too.
With k = 1 this is a convolution, and s the modulus of its transfer function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2
from torch.nn.functional import pad

from diffsplit.operators.base import LinearOperator
from diffsplit.operators.constants import Constants
from diffsplit.operators.hartley import from_half, hermitian, mirrored, to_half
from diffsplit.operators.reflection import merge, reflect, reflector, split
from diffsplit.operators.spectrum import Spectrum, without_rounding

__all__ = ["FourierSpectrum", "first_row"]


def first_row(operator: LinearOperator) -> Tensor:
    """Aᵀe for the first pixel of every channel, ``(C, H, W)`` in float64.

    All other rows of an operator with a stride are shifts of it.
    """
    unit = torch.zeros(1, *operator.shape_out, dtype=torch.float64, device=operator._device())
    unit[..., 0, 0] = 1
    return operator.adjoint(unit)[0]


class FourierSpectrum(Spectrum):
    """The decomposition of an operator whose ``stride`` is k, read off its first row.

    Coefficients are ``(C, k², H/k, W/k)``: the first of every k² is measured, the others are the
    null space.
    """

    def __init__(self, operator: LinearOperator) -> None:
        if operator.stride is None:
            raise ValueError("only operators with a stride are diagonal in Fourier blocks")
        self._stride = stride = operator.stride
        self.shape_in, self.shape_out = operator.shape_in, operator.shape_out
        channels, *grid = self.shape_out
        self.shape = (channels, stride**2, *grid)
        self._grid, width = (grid[0], grid[1]), grid[1]
        row = first_row(operator).cpu()
        if bool((row == row[:1]).all()):  # one kernel for all channels
            row = row[:1]
        # A real row, read backwards in space: its transform is g*, the seen direction itself.
        seen = hermitian(rfft2(split(row[:, None], stride)[:, 0]), width)
        s = without_rounding(seen.abs().square().sum(1, keepdim=True).sqrt())
        seen = torch.where(s > 0, seen / s, torch.zeros_like(seen))
        w, phase = reflector(seen, 1)
        u = phase.conj() * (s > 0)
        self._constants = Constants(w=w, u=u if stride == 1 else -u)
        s = pad(mirrored(s, width), (0, 0, 0, 0, 0, stride**2 - 1))
        self.singular_values = s.to(operator._device())

    def _rotate(self, z: Tensor) -> Tensor:
        return z if self._stride == 1 else reflect(z, self._constants.like("w", z), 2)

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
