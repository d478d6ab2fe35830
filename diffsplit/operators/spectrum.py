"""The singular value decomposition of an operator, where fast transforms give it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsplit.operators.checks import check_batch

__all__ = ["Spectrum", "without_rounding"]

_RANK = 1e-12  # of the largest singular value: below it there is nothing but rounding


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
    """

    singular_values: Tensor
    shape: tuple[int, ...]
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]

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

        Raises:
            InputError: ``x`` has another shape, or is not of floats.
        """
        check_batch(x, self.shape_in, "the decomposition takes images")
        return self._analyze(_work(x)).to(x.dtype)

    def synthesize(self, c: Tensor) -> Tensor:
        """V c, the inverse of `analyze`: ``(B, *shape)`` to ``(B, *shape_in)``.

        Raises:
            InputError: ``c`` has another shape, or is not of floats.
        """
        check_batch(c, self.shape, "the decomposition takes coefficients")
        return self._synthesize(_work(c)).to(c.dtype)

    def analyze_measurement(self, y: Tensor) -> Tensor:
        """Uᵀ y: ``(B, *shape_out)`` to ``(B, *shape)``, 0 where s = 0.

        Raises:
            InputError: ``y`` has another shape, or is not of floats.
        """
        check_batch(y, self.shape_out, "the decomposition takes measurements")
        return self._analyze_measurement(_work(y)).to(y.dtype)

    def synthesize_measurement(self, c: Tensor) -> Tensor:
        """U c: ``(B, *shape)`` to ``(B, *shape_out)``; entries where s = 0 are ignored.

        Raises:
            InputError: ``c`` has another shape, or is not of floats.
        """
        check_batch(c, self.shape, "the decomposition takes coefficients")
        return self._synthesize_measurement(_work(c)).to(c.dtype)

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

    @property
    def size(self) -> int:
        """N, the number of coefficients."""
        return math.prod(self.shape)


def without_rounding(s: Tensor) -> Tensor:
    """Singular values, with those exactly 0 that differ from it by rounding alone."""
    return torch.where(s > _RANK * s.max(), s, torch.zeros_like(s))


def _work(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
