"""The singular value decomposition of an operator, where fast transforms give it."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffsplit.operators.checks import check_batch
from diffsplit.operators.tensors import Constants, Map

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MatrixSpectrum", "SelectedRows", "Spectrum", "is_scaled_identity", "without_rounding"]

_ROUNDING = 1e-12  # relative to the largest value: below it there is nothing but rounding


class Spectrum(ABC):
    """A = U diag(s) Vᵀ with V real, square and orthonormal.

    The coefficients Vᵀx of an image are real numbers, as many as its entries: norms are kept, and
    white noise is white noise among them. U has orthonormal columns where s > 0, and zero ones
    elsewhere.

    A subclass defines the four hooks, which get batches of the right shape in float32 or float64,
    and sets the attributes.

    Attributes:
        singular_values: s ≥ 0 in float64, on the device of the operator, with one dimension for
            each of ``shape`` and broadcastable to it; exactly 0 on the null space.
        shape: shape of the coefficients of one image.
        shape_in: shape of one image.
        shape_out: shape of one measurement.
        separable: whether each measurement is one coefficient, y_i = s_i c_i + noise, so that any
            elementwise channel acts on single coefficients. Then Uᵀ only puts the entries of a
            measurement at their places among the coefficients, and U takes them back: it may be
            applied to variances as well as to means.
    """

    singular_values: Tensor
    shape: tuple[int, ...]
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    separable: bool = False
    _negative = False  # of A = U diag(s) (−V)ᵀ, a negative multiple

    @abstractmethod
    def _analyze(self, x: Tensor) -> Tensor:
        """Vᵀ x."""

    @abstractmethod
    def _synthesize(self, c: Tensor) -> Tensor:
        """V c."""

    @abstractmethod
    def _analyze_measurement(self, y: Tensor) -> Tensor:
        """Uᵀ y."""

    @abstractmethod
    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        """U c."""

    def analyze(self, x: Tensor) -> Tensor:
        """Vᵀ x: images ``(B, *shape_in)`` to coefficients ``(B, *shape)``, in the dtype of ``x``.

        This and the three below raise InputError for another shape, or for what is not of floats.
        """
        c = _computed(self._analyze, x, self.shape_in, "images")
        return -c if self._negative else c

    def synthesize(self, c: Tensor) -> Tensor:
        """V c, the inverse of `analyze`: ``(B, *shape)`` to ``(B, *shape_in)``."""
        x = _computed(self._synthesize, c, self.shape, "coefficients")
        return -x if self._negative else x

    def analyze_measurement(self, y: Tensor) -> Tensor:
        """Uᵀ y: ``(B, *shape_out)`` to ``(B, *shape)``, 0 where s = 0."""
        return _computed(self._analyze_measurement, y, self.shape_out, "measurements")

    def synthesize_measurement(self, c: Tensor) -> Tensor:
        """U c: ``(B, *shape)`` to ``(B, *shape_out)``; entries where s = 0 are ignored."""
        return _computed(self._synthesize_measurement, c, self.shape, "coefficients")

    def filter(self, x: Tensor, gains: Tensor) -> Tensor:
        """V diag(f) Vᵀ x: with f = s² this is AᵀA x.

        Args:
            x: images ``(B, *shape_in)``.
            gains: f, aligned with ``singular_values``; a leading dimension makes it per image.
        """
        c = self.analyze(x)
        return self.synthesize(c * gains.to(c))

    def filter_measurement(self, y: Tensor, gains: Tensor) -> Tensor:
        """V diag(f) Uᵀ y: with f = s this is Aᵀ y, with f = 1/s where s > 0 the pseudo-inverse.

        Args:
            y: measurements ``(B, *shape_out)``.
            gains: as in `filter`.
        """
        c = self.analyze_measurement(y)
        return self.synthesize(c * gains.to(c))

    def scaled(self, factor: float) -> Self:
        """The decomposition of ``factor`` · A, with the same U; V takes the sign."""
        other = copy.copy(self)
        other.singular_values = self.singular_values * abs(factor)
        other._negative = self._negative != (factor < 0)
        return other

    @property
    def size(self) -> int:
        """N, the number of coefficients."""
        return math.prod(self.shape)


class SelectedRows(Spectrum):
    """A = γ R Vᵀ: R keeps some coefficients of an orthonormal transform, in their order.

    Args:
        shape_in: shape of one image, N entries.
        shape_out: shape of one measurement, M entries.
        rows: indices ``(M,)`` of the coefficients that are kept.
        gain: γ > 0.
        analyze: Vᵀ, from ``(B, *shape_in)`` to ``(B, N)``; by default the entries themselves.
        synthesize: V.
    """

    separable = True

    def __init__(
        self,
        shape_in: Sequence[int],
        shape_out: Sequence[int],
        rows: Tensor,
        gain: float,
        analyze: Map | None = None,
        synthesize: Map | None = None,
    ) -> None:
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        self.shape = (math.prod(shape_in),)
        self.singular_values = torch.zeros(self.shape, dtype=torch.float64, device=rows.device)
        self.singular_values[rows] = gain
        self._rows, self._forward, self._backward = rows, analyze, synthesize

    def _analyze(self, x: Tensor) -> Tensor:
        return self._forward(x) if self._forward else x.flatten(1)

    def _synthesize(self, c: Tensor) -> Tensor:
        return self._backward(c) if self._backward else c.reshape(-1, *self.shape_in)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return y.new_zeros(len(y), *self.shape).index_copy(1, self._rows, y.flatten(1))

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return c.index_select(1, self._rows).reshape(-1, *self.shape_out)


class MatrixSpectrum(Spectrum):
    """A dense matrix, on all entries of an image or on the channels of each of its pixels.

    It is separable if the rows of the matrix are orthogonal and of one length.

    Args:
        matrix: ``(m, n)``. An image is read as ``(n, N/n)``, a measurement as ``(m, N/n)``.
        shape_in: shape of one image, N entries.
        shape_out: shape of one measurement.
    """

    def __init__(self, matrix: Tensor, shape_in: Sequence[int], shape_out: Sequence[int]) -> None:
        m, n = matrix.shape
        self.shape_in, self.shape_out = tuple(shape_in), tuple(shape_out)
        self.shape = (n, math.prod(shape_in) // n)
        matrix = matrix.double()
        mean = matrix.square().sum() / m
        self.separable = m <= n and is_scaled_identity(matrix @ matrix.mT, float(mean))
        if self.separable:
            u, s, v = torch.eye(m).to(matrix), mean.sqrt().expand(m), matrix.mT / mean.sqrt()
        else:
            u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
            s, v = without_rounding(s), vh.mT
        self._missing = n - len(s)
        self.singular_values = pad(s, (0, self._missing))[:, None]
        if self._missing:  # an orthonormal basis of what the matrix does not see
            v = torch.cat([v, torch.linalg.qr(v, mode="complete").Q[:, len(s) :]], 1)
        self._constants = Constants(u=u * (s > 0), v=v)

    def _analyze(self, x: Tensor) -> Tensor:
        v = self._constants.like("v", x)
        return torch.einsum("np,bnr->bpr", v, x.reshape(-1, *self.shape))

    def _synthesize(self, c: Tensor) -> Tensor:
        v = self._constants.like("v", c)
        return torch.einsum("np,bpr->bnr", v, c).reshape(-1, *self.shape_in)

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        u = self._constants.like("u", y)
        c = torch.einsum("mp,bmr->bpr", u, y.reshape(len(y), len(u), -1))
        return pad(c, (0, 0, 0, self._missing))

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        u = self._constants.like("u", c)
        y = torch.einsum("mp,bpr->bmr", u, c[:, : u.shape[1]])
        return y.reshape(-1, *self.shape_out)


def without_rounding(s: Tensor) -> Tensor:
    """Singular values, with those exactly 0 that differ from it by rounding alone."""
    return torch.where(s > _ROUNDING * s.max(), s, torch.zeros_like(s))


def is_scaled_identity(gram: Tensor, mean: float) -> bool:
    """Whether a matrix in float64 differs from ``mean`` · I by rounding alone."""
    error = gram - mean * torch.eye(len(gram)).to(gram)
    return bool(error.abs().max() <= _ROUNDING * mean)


def _computed(hook: Map, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """``hook`` in float32 at least, of a batch that is checked to be of ``shape``."""
    check_batch(x, shape, f"the decomposition takes {name}")
    return hook(x if x.dtype == torch.float64 else x.float()).to(x.dtype)
