"""Operators from operators: products, multiples and stacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.checks import real
from diffsplit.operators.fourier import FourierSpectrum, first_row
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.spectra import ScaledSpectrum
from diffsplit.operators.spectrum import Spectrum

__all__ = ["Composed", "Scaled", "Stacked", "mean_row_norm"]

_PROBES = 16


@torch.no_grad()
def mean_row_norm(operator: LinearOperator, device: torch.device | None = None) -> float:
    """Estimate tr(A Aᵀ)/M, the mean squared norm of a row, by Hutchinson's method.

    E ‖Aᵀ r‖² = tr(A Aᵀ) for random signs r. The signs have a fixed seed, so that an operator
    always gets the same answer; with at most 16 rows the answer is exact.
    """
    size = operator.size_out
    if size <= _PROBES:
        probes = torch.eye(size)
    else:
        generator = seeded(0, "mean_row_norm")
        probes = torch.randint(0, 2, (_PROBES, size), generator=generator) * 2.0 - 1
    images = operator.adjoint(probes.reshape(-1, *operator.shape_out).to(device))
    # Each of the probes has the square norm 1 (unit vectors) or M (signs).
    return float(images.double().square().sum() / probes.square().sum())


class Composed(LinearOperator):
    """``outer`` after ``inner``, also written ``outer @ inner``.

    Two operators with a stride, such as a reduction after a circular blur, have a spectrum.

    Args:
        outer: takes what ``inner`` gives.
        inner: takes the images.

    Raises:
        InputError: the shapes do not match.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.shape_in != inner.shape_out:
            raise InputError(
                f"an operator on shape {outer.shape_in} cannot follow one that gives "
                f"{inner.shape_out}; the two must agree."
            )
        self.outer, self.inner = outer, inner
        self.shape_in, self.shape_out = inner.shape_in, outer.shape_out
        if outer.stride is not None and inner.stride is not None:
            self.stride = outer.stride * inner.stride
        if isinstance(inner.gram, ScaledIdentity):  # then A Aᵀ = c · outer outerᵀ
            kind = ScaledIdentity if isinstance(outer.gram, ScaledIdentity) else Gram
            self.gram = kind(outer.gram.mean * inner.gram.mean)
        elif self.stride is not None:
            self.gram = Gram(float(first_row(self).square().sum()) / self.shape_in[0])
        else:
            self.gram = Gram(mean_row_norm(self, self._device()))

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner.apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def apply_gram(self, y: Tensor) -> Tensor:
        if isinstance(self.inner.gram, ScaledIdentity):
            return self.outer.apply_gram(y) * self.inner.gram.mean
        return super().apply_gram(y)

    @property
    def has_spectrum(self) -> bool:
        return self.stride is not None

    def _make_spectrum(self) -> Spectrum:
        return FourierSpectrum(self)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Composed:
        """Move both operators."""
        self.outer.to(device, dtype)
        self.inner.to(device, dtype)
        self._forget()
        return self

    def config(self) -> dict[str, Any]:
        return {"kind": "composed", "outer": self.outer.config(), "inner": self.inner.config()}


class Scaled(LinearOperator):
    """``factor`` · A, also written ``factor * A``.

    Args:
        operator: A.
        factor: a number other than 0, of magnitude between 1e-18 and 1e18.

    Raises:
        InputError: another factor.
    """

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        self.factor = real(factor, "the factor of an operator")
        if not 1e-18 < abs(self.factor) < 1e18:  # so that its square fits float32
            raise InputError(
                f"the factor of an operator has a magnitude between 1e-18 and 1e18, "
                f"not {self.factor}; rescale the images or the noise level instead."
            )
        self.operator = operator
        self.shape_in, self.shape_out = operator.shape_in, operator.shape_out
        self.gram = operator.gram.scaled(self.factor)
        self.stride = operator.stride

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator.apply(x) * self.factor

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y) * self.factor

    def apply_gram(self, y: Tensor) -> Tensor:
        return self.operator.apply_gram(y) * self.factor**2

    @property
    def has_spectrum(self) -> bool:
        return self.operator.has_spectrum

    def _make_spectrum(self) -> Spectrum:
        return ScaledSpectrum(self.operator.spectrum(), self.factor)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Scaled:
        """Move the operator."""
        self.operator.to(device, dtype)
        self._forget()
        return self

    def config(self) -> dict[str, Any]:
        return {"kind": "scaled", "operator": self.operator.config(), "factor": self.factor}


class Stacked(LinearOperator):
    """Several looks at one image: the measurements of each, flattened, one after the other.

    Args:
        operators: one or more, for images of one shape.

    Raises:
        InputError: none given, or their images differ in shape.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise InputError("a stack needs at least one operator.")
        shapes = {operator.shape_in for operator in operators}
        if len(shapes) > 1:
            raise InputError(f"stacked operators take images of one shape, not of {shapes}.")
        self.operators = operators
        self._sizes = [operator.size_out for operator in operators]
        self.shape_in, self.shape_out = operators[0].shape_in, (sum(self._sizes),)
        # Traces add, whatever the angle between the rows of two operators.
        trace = sum(operator.size_out * operator.gram.mean for operator in operators)
        self.gram = operators[0].gram if len(operators) == 1 else Gram(trace / self.size_out)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([operator.apply(x).flatten(1) for operator in self.operators], 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = zip(self.operators, torch.split(y, self._sizes, 1), strict=True)
        images = [
            operator.adjoint(part.reshape(-1, *operator.shape_out)) for operator, part in parts
        ]
        return torch.stack(images).sum(0)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Stacked:
        """Move every operator."""
        for operator in self.operators:
            operator.to(device, dtype)
        self._forget()
        return self

    def config(self) -> dict[str, Any]:
        return {"kind": "stacked", "operators": [operator.config() for operator in self.operators]}
