"""Singular value decompositions of the simplest structures: chosen rows, matrices, multiples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsplit.operators.constants import Constants
from diffsplit.operators.spectrum import Spectrum, without_rounding

__all__ = ["MatrixSpectrum", "ScaledSpectrum", "SelectedRows"]


class SelectedRows(Spectrum):
    """A = γ R Vᵀ: R keeps some coefficients of an orthonormal transform, in their order.

    Args:
        shape_in: shape of one image, N entries.
        rows: indices ``(M,)`` of the coefficients that are kept.
        gain: γ > 0.
        analyze: Vᵀ, from ``(B, *shape_in)`` to ``(B, N)``.
        synthesize: V.
    """

    def __init__(
        self,
        shape_in: Sequence[int],
        rows: Tensor,
        gain: float,
        analyze: Callable[[Tensor], Tensor],
        synthesize: Callable[[Tensor], Tensor],
    ) -> None:
        self.shape_in, self.shape_out = tuple(shape_in), tuple(rows.shape)
        self.shape = (math.prod(shape_in),)
        self.singular_values = torch.zeros(self.shape, dtype=torch.float64, device=rows.device)
        self.singular_values[rows] = gain
        self._rows, self._forward, self._backward = rows, analyze, synthesize

    def _analyze(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def _synthesize(self, c: Tensor) -> Tensor:
        return self._backward(c)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return y.new_zeros(len(y), *self.shape).index_copy(1, self._rows, y)

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return c.index_select(1, self._rows)


class MatrixSpectrum(Spectrum):
    """A dense matrix, on all entries of an image or on the channels of each of its pixels.

    Args:
        matrix: ``(m, n)``. An image is read as ``(n, N/n)``, a measurement as ``(m, N/n)``.
        shape_in: shape of one image, N entries.
        shape_out: shape of one measurement.
    """

    def __init__(self, matrix: Tensor, shape_in: Sequence[int], shape_out: Sequence[int]) -> None:
        n = matrix.shape[1]
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        self.shape = (n, math.prod(shape_in) // n)
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        self._missing = n - len(s)
        s = without_rounding(s)
        self.singular_values = torch.nn.functional.pad(s, (0, self._missing))[:, None]
        v = vh.mT
        if self._missing:  # an orthonormal basis of what the matrix does not see
            v = torch.cat([v, torch.linalg.qr(v, mode="complete").Q[:, len(s) :]], 1)
        self._constants = Constants(u=u * (s > 0), v=v)

    def _analyze(self, x: Tensor) -> Tensor:
        return _transposed(self._constants.like("v", x), x.reshape(-1, *self.shape))

    def _synthesize(self, c: Tensor) -> Tensor:
        return _times(self._constants.like("v", c), c).reshape(-1, *self.shape_in)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        u = self._constants.like("u", y)
        c = _transposed(u, y.reshape(len(y), len(u), -1))
        return torch.nn.functional.pad(c, (0, 0, 0, self._missing))

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        u = self._constants.like("u", c)
        return _times(u, c[:, : u.shape[1]]).reshape(-1, *self.shape_out)


class ScaledSpectrum(Spectrum):
    """A multiple of an operator: V stays, s grows, and U takes the sign.

    Args:
        spectrum: of the operator.
        factor: not 0.
    """

    def __init__(self, spectrum: Spectrum, factor: float) -> None:
        self.shape, self.shape_in = spectrum.shape, spectrum.shape_in
        self.shape_out = spectrum.shape_out
        self.singular_values = spectrum.singular_values * abs(factor)
        self._spectrum, self._sign = spectrum, math.copysign(1.0, factor)

    def _analyze(self, x: Tensor) -> Tensor:
        return self._spectrum.analyze(x)

    def _synthesize(self, c: Tensor) -> Tensor:
        return self._spectrum.synthesize(c)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return self._spectrum.analyze_measurement(y) * self._sign

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return self._spectrum.synthesize_measurement(c) * self._sign


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """``(p, n)`` times each ``(n, r)`` of a batch."""
    return torch.einsum("pn,bnr->bpr", matrix, x)


def _transposed(matrix: Tensor, x: Tensor) -> Tensor:
    """The transpose of ``(n, p)`` times each ``(n, r)`` of a batch."""
    return torch.einsum("np,bnr->bpr", matrix, x)
