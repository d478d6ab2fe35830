"""Blocks of pixels of which an operator sees one direction, and bases that start with it.

An operator that commutes with shifts by k pixels sees an image as k² interleaved ones, its
polyphase components. A Householder reflection turns the seen direction of a block into its first
coordinate; the others span what is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffsplit.operators.constants import Constants
from diffsplit.operators.spectrum import Spectrum

__all__ = ["BlockMeanSpectrum", "merge", "reflect", "reflector", "split"]


def split(x: Tensor, factor: int) -> Tensor:
    """``(B, C, H, W)`` to polyphase components ``(B, C, factor², H/factor, W/factor)``."""
    b, c, height, width = x.shape
    h, w = height // factor, width // factor
    blocks = x.reshape(b, c, h, factor, w, factor).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(b, c, factor * factor, h, w)


def merge(x: Tensor, factor: int) -> Tensor:
    """The inverse of `split`."""
    b, c, _, h, w = x.shape
    blocks = x.reshape(b, c, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(b, c, h * factor, w * factor)


def reflector(direction: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The Householder reflection R = I − w wᴴ that takes ``direction`` to its first coordinate.

    Args:
        direction: a, real or complex, of length 1 (or 0, where any reflection will do).
        dim: along which its coordinates lie.

    Returns:
        w, and the phase φ of the first coordinate of a: R a = −φ e₁. The sign avoids cancellation.
    """
    first = direction.narrow(dim, 0, 1)
    size = first.abs()
    phase = torch.where(size > 0, first / size, torch.ones_like(first))
    rest = direction.narrow(dim, 1, direction.shape[dim] - 1)
    w = torch.cat([first + phase, rest], dim)
    return w * (2 / w.abs().square().sum(dim, keepdim=True)).sqrt(), phase


def reflect(x: Tensor, w: Tensor, dim: int) -> Tensor:
    """(I − w wᴴ) x along ``dim``: its own inverse, and orthonormal or unitary."""
    return x - w * (w.conj() * x).sum(dim, keepdim=True)


class BlockMeanSpectrum(Spectrum):
    """The mean of every block of ``factor`` × ``factor`` pixels: s = 1/factor, or 0.

    Coefficients are ``(C, factor², H/factor, W/factor)``; the first of each block is measured.
    """

    def __init__(self, shape: Sequence[int], factor: int, device: torch.device) -> None:
        channels, height, width = shape
        self.shape_in = tuple(shape)
        self.shape_out = (channels, height // factor, width // factor)
        self.shape = (channels, factor**2, *self.shape_out[1:])
        seen = torch.full((factor**2, 1, 1), 1 / factor, dtype=torch.float64)
        self._constants = Constants(w=reflector(seen, 0)[0])
        self.singular_values = torch.zeros(1, factor**2, 1, 1, dtype=torch.float64, device=device)
        self.singular_values[:, 0] = 1 / factor
        self._factor = factor

    def _analyze(self, x: Tensor) -> Tensor:
        return reflect(split(x, self._factor), self._constants.like("w", x), 2)

    def _synthesize(self, c: Tensor) -> Tensor:
        return merge(reflect(c, self._constants.like("w", c), 2), self._factor)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return pad(-y.unsqueeze(2), (0, 0, 0, 0, 0, self._factor**2 - 1))  # − as in R a = −e₁

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return -c[:, :, 0]
