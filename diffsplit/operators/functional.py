"""Operators from a user's function or matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.algebra import mean_row_norm
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.checks import shape_of
from diffsplit.operators.dense import DenseOperator
from diffsplit.operators.gram import Gram, IIDRows, ScaledIdentity
from diffsplit.operators.spectra import MatrixSpectrum
from diffsplit.operators.spectrum import Spectrum

__all__ = ["FunctionOperator", "MatrixOperator", "from_function", "from_matrix"]

_MAX_UNKNOWNS = 4096  # up to here a dense decomposition fits memory and patience
_TOLERANCE = 1e-3  # float32 through a long chain of operations stays well below


class FunctionOperator(LinearOperator):
    """A user's linear function, and its adjoint, by automatic differentiation if none is given.

    The function is tried on a few random images when the operator is built: they find its output
    shape, and whether it is linear, treats the images of a batch apart, and fits its adjoint.

    Args:
        apply: from ``(B, *shape_in)`` to ``(B, *shape_out)``, linear.
        shape_in: shape of one image.
        shape_out: shape of one measurement, found by the trial if None.
        adjoint: from ``(B, *shape_out)`` to ``(B, *shape_in)``.
        device: where the function wants its images.

    Raises:
        InputError: the function fails, is not linear, mixes the images of a batch, gives another
            shape than announced, cannot be differentiated, or does not fit its adjoint.
    """

    def __init__(
        self,
        apply: Callable[[Tensor], Tensor],
        shape_in: Sequence[int],
        shape_out: Sequence[int] | None = None,
        adjoint: Callable[[Tensor], Tensor] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.shape_in = shape_of(shape_in)
        self._function, self._transpose = apply, adjoint
        self._at = torch.empty(0, device=device)
        generator = seeded(0, "FunctionOperator")
        x = torch.randn((2, *self.shape_in), generator=generator).to(device)
        first, second = self._tried(x[:1], shape_out), self._tried(x[1:], shape_out)
        self.shape_out = tuple(first.shape[1:])
        # Large and unlike factors: a clipping or a rounding cannot hide behind them.
        mixed = self._tried(17 * x[:1] - 31 * x[1:], self.shape_out)
        if not _close(mixed, 17 * first - 31 * second):
            raise InputError(
                "the function is not linear: f(17 x − 31 z) differs from 17 f(x) − 31 f(z); "
                "give the linear part and leave offsets, clipping and rounding to a channel."
            )
        y = self._tried(x, self.shape_out)
        if not _close(y, torch.cat([first, second])):
            raise InputError(
                "the function gives an image another result alone than in a batch; "
                "it must treat the images of a batch (B, …) independently."
            )
        self._check_adjoint(x, y)
        self.gram = Gram(mean_row_norm(self, self._at.device))
        if not self.gram.mean > 0:
            raise InputError("the function is zero everywhere and measures nothing.")

    def _tried(self, x: Tensor, shape_out: Sequence[int] | None) -> Tensor:
        try:
            with torch.no_grad():
                y = self._function(x)
        except Exception as error:
            raise InputError(
                f"the function failed on a float32 batch {tuple(x.shape)} on {x.device}: {error}"
            ) from error
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != len(x) or not y.is_floating_point():
            raise InputError(
                f"the function must turn a batch {tuple(x.shape)} into a tensor of floats "
                f"({len(x)}, …) with one measurement for each image."
            )
        if shape_out is not None and tuple(y.shape[1:]) != tuple(shape_out):
            raise InputError(
                f"the function gives measurements of shape {tuple(y.shape[1:])}, "
                f"not {tuple(shape_out)} as announced."
            )
        if y.numel() == 0 or not bool(torch.isfinite(y).all()):
            raise InputError("the function gives an empty result, NaN or infinity; it must not.")
        return y

    def _check_adjoint(self, x: Tensor, y: Tensor) -> None:
        try:
            back = self._adjoint(y)
        except Exception as error:
            raise InputError(
                f"the adjoint failed on {tuple(y.shape)}: {error}; give one as adjoint=, "
                "or a function that PyTorch can differentiate."
            ) from error
        if back.shape != x.shape or not _close((x * back).sum(), y.square().sum()):
            raise InputError(
                "the adjoint does not belong to the function: ⟨x, Aᵀ A x⟩ differs from ‖A x‖²; "
                "correct it, or leave it out to have it computed."
            )

    def _apply(self, x: Tensor) -> Tensor:
        return self._function(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self._transpose is not None:
            return self._transpose(y)
        with torch.inference_mode(False), torch.enable_grad():
            origin = y.new_zeros((len(y), *self.shape_in)).requires_grad_()
            (image,) = torch.autograd.grad(self._function(origin), origin, y)
        return image

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> FunctionOperator:
        """Note where images will live; the function itself has to follow its input."""
        self._at = self._at.to(device=device)
        return self


class MatrixOperator(DenseOperator):
    """A dense matrix. Products are computed in the wider dtype of matrix and image.

    With at most 4096 columns it has a spectrum, by a dense decomposition in float64.

    Args:
        matrix: ``(M, N)``, floats.
        shape_in: shape of one image, with N entries; ``(N,)`` if None.
        rows: what you know of them, for message passing: "iid" for a matrix of independent entries
            of mean 0 and one variance (taken at your word), "orthogonal" for orthogonal rows of one
            length (checked).

    Raises:
        InputError: no finite matrix of floats, all zero, of another width than ``shape_in``, or
            without the rows that were announced.
    """

    def __init__(
        self,
        matrix: Tensor,
        shape_in: Sequence[int] | None = None,
        rows: Literal["iid", "orthogonal"] | None = None,
    ) -> None:
        matrix = torch.as_tensor(matrix)
        if matrix.ndim != 2 or matrix.numel() == 0 or not matrix.is_floating_point():
            raise InputError(
                f"a matrix (M, N) of floats was expected, not {matrix.dtype} {tuple(matrix.shape)}."
            )
        self.shape_in = shape_of(matrix.shape[1:] if shape_in is None else shape_in)
        if self.size_in != matrix.shape[1]:
            raise InputError(
                f"a matrix with {matrix.shape[1]} columns does not fit images of shape "
                f"{self.shape_in}, which have {self.size_in} entries."
            )
        self.shape_out = (len(matrix),)
        trace = sum(float(row.double().square().sum()) for row in matrix)
        if not 0 < trace < float("inf"):
            raise InputError("the matrix is all zero, or holds NaN or infinity.")
        self.matrix = matrix
        self.gram = self._gram_of(rows, trace / len(matrix))

    def _gram_of(self, rows: str | None, mean: float) -> Gram:
        if rows is None:
            return Gram(mean)
        if rows == "iid":
            return IIDRows(mean)
        if rows != "orthogonal":
            raise InputError(f"rows are 'iid', 'orthogonal' or None, not {rows!r}.")
        probe = torch.randn((4, len(self.matrix)), generator=seeded(0, "rows")).to(self.matrix)
        if not _close(self.apply(self.adjoint(probe)), mean * probe):
            raise InputError(
                "the rows of the matrix are not orthogonal and of one length; leave out rows, or "
                "say rows='iid' if its entries are independent."
            )
        return ScaledIdentity(mean)

    @property
    def has_spectrum(self) -> bool:
        return self.size_in <= _MAX_UNKNOWNS

    def _make_spectrum(self) -> Spectrum:
        return MatrixSpectrum(self.matrix, self.shape_in, self.shape_out)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MatrixOperator:
        """Move the matrix, and store it in ``dtype``."""
        self.matrix = self.matrix.to(device=device, dtype=dtype)
        self._forget()
        return self


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= _TOLERANCE * b.norm())


def from_function(
    apply: Callable[[Tensor], Tensor], shape_in: Sequence[int], **options: Any
) -> FunctionOperator:
    """An operator from a linear function of image batches; options as in `FunctionOperator`."""
    return FunctionOperator(apply, shape_in, **options)


def from_matrix(
    matrix: Tensor,
    shape_in: Sequence[int] | None = None,
    rows: Literal["iid", "orthogonal"] | None = None,
) -> MatrixOperator:
    """An operator from a dense matrix ``(M, N)``; see `MatrixOperator`."""
    return MatrixOperator(matrix, shape_in, rows)
