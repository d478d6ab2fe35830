"""Smaller images: antialiased reduction by a whole factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from diffsplit.errors import InputError
from diffsplit.operators.base import PortableOperator
from diffsplit.operators.checks import choice, integer, shape_of
from diffsplit.operators.fourier import BlockMeanSpectrum
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.spectrum import Spectrum
from diffsplit.operators.tensors import Constants

__all__ = ["Downsample"]

_MAX_SIDE = 4096  # of bicubic and lanczos, whose matrices (side/factor, side) are stored


class Downsample(PortableOperator):
    """Every ``factor`` × ``factor`` block of pixels becomes one.

    "average" is the mean of the block, with A Aᵀ = I/factor². "bicubic" (Keys 1981, a = −1/2) and
    "lanczos" (three lobes) widen their kernel by the factor against aliasing, as Pillow's resize
    does, with weights that sum to 1 and centers of blocks for positions. The boundary is circular,
    so that far from it the results are those of Pillow.

    Args:
        shape: ``(C, H, W)``.
        factor: a divisor of H and W.
        kernel: "average", "bicubic" or "lanczos".

    Raises:
        InputError: bad arguments, or a side above 4096 pixels for a kernel other than "average".
    """

    _kind = "downsample"

    def __init__(self, shape: Sequence[int], factor: int, kernel: str = "average") -> None:
        self.shape_in = shape_of(shape, ndim=3)
        channels, height, width = self.shape_in
        self.factor = integer(factor, "the factor of a reduction", 1, min(height, width))
        if height % self.factor or width % self.factor:
            raise InputError(
                f"images of {height}×{width} pixels cannot be reduced by {self.factor}; "
                "choose a divisor of both sides, or crop the images."
            )
        self.kernel = choice(kernel, "the kernel", ("average", "bicubic", "lanczos"))
        self.shape_out = (channels, height // self.factor, width // self.factor)
        self.stride = self.factor
        self._given = {"factor": self.factor, "kernel": kernel}
        if kernel == "average":
            self.gram: Gram = ScaledIdentity(1 / self.factor**2)
            return
        if max(height, width) > _MAX_SIDE:
            raise InputError(
                f"{kernel} reduction takes sides of at most {_MAX_SIDE} pixels, not "
                f'{height}×{width}; use "average", or work on crops.'
            )
        rows = _reduction(height, self.factor, kernel)
        columns = _reduction(width, self.factor, kernel)
        self._matrices = Constants(rows=rows, columns=columns)
        # The rows of each matrix are shifts of its first.
        self.gram = Gram(float(rows[0].square().sum() * columns[0].square().sum()))

    def _apply(self, x: Tensor) -> Tensor:
        if self.kernel == "average":
            return avg_pool2d(x, self.factor)
        rows, columns = self._matrices.like("rows", x), self._matrices.like("columns", x)
        return (rows @ x.to(rows.dtype) @ columns.mT).to(x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.kernel == "average":
            return interpolate(y, scale_factor=self.factor) / self.factor**2
        rows, columns = self._matrices.like("rows", y), self._matrices.like("columns", y)
        return (rows.mT @ y.to(rows.dtype) @ columns).to(y.dtype)

    def _make_spectrum(self) -> Spectrum:
        if self.kernel == "average":
            return BlockMeanSpectrum(self.shape_in, self.factor, self.device)
        return super()._make_spectrum()


def _bicubic(t: Tensor) -> Tensor:
    """Keys' kernel with a = −1/2, which reproduces quadratic functions; 0 beyond ±2."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _lanczos(t: Tensor) -> Tensor:
    """sinc t · sinc t/3; 0 beyond ±3."""
    return torch.where(t.abs() < 3, torch.sinc(t) * torch.sinc(t / 3), torch.zeros_like(t))


def _reduction(size: int, factor: int, kernel: str) -> Tensor:
    """The matrix ``(size/factor, size)`` that reduces one side, in float64."""
    function, lobes = (_bicubic, 2) if kernel == "bicubic" else (_lanczos, 3)
    reach = lobes * factor
    offsets = torch.arange(-reach, reach + factor)  # of pixels, from the first of the block
    weights = function((offsets.double() + 0.5) / factor - 0.5)
    weights = weights / weights.sum()
    blocks = torch.arange(size // factor)
    columns = (blocks[:, None] * factor + offsets).remainder(size)
    matrix = torch.zeros(len(blocks), size, dtype=torch.float64)
    # A kernel wider than the image wraps around it more than once: its weights add up.
    return matrix.scatter_add_(1, columns, weights.expand(len(blocks), -1))
