"""Operators from what users bring: a function with its adjoint, or a matrix of any library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator, PortableOperator
from diffsplit.operators.checks import shape_of
from diffsplit.operators.dense import MatrixOperator, columns_of
from diffsplit.operators.gram import Gram
from diffsplit.operators.probes import mean_row_norm
from diffsplit.operators.tensors import Constants, Map

__all__ = ["FunctionOperator", "from_function", "from_matrix"]

_TOLERANCE = 1e-3  # float32 through a long chain of operations stays well below


class FunctionOperator(PortableOperator):
    """A user's linear function, and its adjoint, by automatic differentiation if none is given.

    The function is tried on a few random images when the operator is built: they find its output
    shape, and whether it is linear, treats the images of a batch apart, and fits its adjoint.

    Args:
        apply: from ``(B, *shape_in)`` to ``(B, *shape_out)``, linear. It gets tensors and may
            return NumPy arrays; PyTorch cannot differentiate those, so that they need an adjoint.
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
        apply: Map,
        shape_in: Sequence[int],
        shape_out: Sequence[int] | None = None,
        adjoint: Map | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.shape_in = shape_of(shape_in)
        announced = None if shape_out is None else shape_of(shape_out)
        self._function, self._transpose = apply, adjoint
        self._place = checked_device(device)
        generator = seeded(0, "FunctionOperator")
        x = torch.randn((2, *self.shape_in), generator=generator).to(self._place)
        first, second = self._tried(x[:1], announced), self._tried(x[1:], announced)
        self.shape_out = tuple(first.shape[1:])
        # Large and unlike factors, so that a clipping or a rounding shows.
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
        self.gram = Gram(mean_row_norm(self._adjoint, self.shape_out, self._place))
        if not self.gram.mean > 0:
            raise InputError("the function is zero everywhere and measures nothing.")

    def _tried(self, x: Tensor, shape_out: Sequence[int] | None) -> Tensor:
        try:
            with torch.no_grad():
                y = self._apply(x)
        except Exception as error:
            raise InputError(
                f"the function failed on a float32 batch {tuple(x.shape)} on {x.device}: "
                f"{error!s:.200}; a function of NumPy arrays is given as lambda x: f(x.numpy())."
            ) from error
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != len(x) or not y.is_floating_point():
            raise InputError(
                f"the function must turn a batch {tuple(x.shape)} into real floats "
                f"({len(x)}, …) with one measurement for each image, a tensor or an array."
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
                f"the adjoint failed on {tuple(y.shape)}: {error!s:.200}; give one as adjoint=, "
                "or a function that PyTorch can differentiate."
            ) from error
        fits = isinstance(back, Tensor) and back.shape == x.shape and back.is_floating_point()
        if not fits or not _close((x * back).sum(), y.square().sum()):
            raise InputError(
                "the adjoint does not belong to the function: ⟨x, Aᵀ A x⟩ differs from ‖A x‖²; "
                "correct it, or leave it out to have it computed."
            )

    def _apply(self, x: Tensor) -> Tensor:
        return _as_tensor(self._function(x), like=x)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self._transpose is not None:
            return _as_tensor(self._transpose(y), like=y)
        with torch.inference_mode(False), torch.enable_grad():
            origin = y.new_zeros((len(y), *self.shape_in)).requires_grad_()
            (image,) = torch.autograd.grad(self._function(origin), origin, y)
        return image


from_function = FunctionOperator
"""An operator from a linear function of image batches; see `FunctionOperator`."""


def from_matrix(
    matrix: Any,
    shape_in: Sequence[int] | None = None,
    rows: Literal["iid", "orthogonal"] | None = None,
) -> LinearOperator:
    """An operator from a real matrix (M, N), in the dtype of the image.

    Args:
        matrix: dense (a tensor, a NumPy array; see `MatrixOperator`), sparse (of PyTorch or SciPy),
            or a SciPy ``LinearOperator``, whose products are computed on the CPU.
        shape_in: shape of one image, with N entries; ``(N,)`` if None.
        rows: what you know of the rows of a dense matrix; see `MatrixOperator`.

    Raises:
        InputError: no finite real matrix, of another width than ``shape_in``, or ``rows`` of a
            matrix that is not dense.
    """
    products = hasattr(matrix, "matvec") and hasattr(matrix, "rmatvec")
    sparse = hasattr(matrix, "tocoo") or getattr(matrix, "layout", torch.strided) != torch.strided
    if not (products or sparse):
        return MatrixOperator(matrix, shape_in, rows)
    if rows is not None:
        raise InputError("rows are announced of a dense matrix alone; leave them out.")
    if len(matrix.shape) != 2 or 0 in matrix.shape or "complex" in str(matrix.dtype):
        raise InputError(
            f"a real matrix (M, N) was expected, not {matrix.dtype} {tuple(matrix.shape)}."
        )
    shape = columns_of(matrix.shape, shape_in)
    return _from_sparse(matrix, shape) if sparse else _from_products(matrix, shape)


def _from_sparse(matrix: Any, shape_in: tuple[int, ...]) -> FunctionOperator:
    """Products with a copy in PyTorch, in float64, and its transpose."""
    if not isinstance(matrix, Tensor):
        coo = matrix.tocoo()
        index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
        values = torch.from_numpy(coo.data.astype(np.float64))
        matrix = torch.sparse_coo_tensor(index, values, tuple(matrix.shape), check_invariants=True)
    entries = matrix.detach().to_sparse().to("cpu", torch.float64).coalesce()
    trace = float(entries.values().square().sum())
    if not 0 < trace < math.inf:
        raise InputError("the matrix is all zero, or holds NaN or infinity.")
    stored = Constants(forward=entries, backward=entries.t().coalesce())

    def product(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        factor = stored.like(name, x)
        columns = x.flatten(1).T.to(factor.dtype)
        result: Tensor = torch.sparse.mm(factor, columns).T.reshape(-1, *shape).to(x.dtype)
        return result

    operator = FunctionOperator(
        lambda x: product("forward", x, (len(entries),)),
        shape_in,
        adjoint=lambda y: product("backward", y, shape_in),
    )
    operator.gram = Gram(trace / len(entries))
    return operator


def _from_products(matrix: Any, shape_in: tuple[int, ...]) -> FunctionOperator:
    """Products with a SciPy LinearOperator, in float64 on the CPU."""

    def product(multiply: Callable[[Any], Any], x: Tensor, shape: tuple[int, ...]) -> Any:
        columns = x.detach().flatten(1).T.cpu().double().numpy()
        return np.asarray(multiply(columns)).T.reshape(len(x), *shape)

    try:
        matrix.rmatmat(np.zeros((matrix.shape[0], 1)))
    except Exception as error:
        raise InputError(
            f"the adjoint of {type(matrix).__name__} failed: {error!s:.200}; give it an rmatvec."
        ) from error
    return FunctionOperator(
        lambda x: product(matrix.matmat, x, (matrix.shape[0],)),
        shape_in,
        adjoint=lambda y: product(matrix.rmatmat, y, shape_in),
    )


def _as_tensor(result: Any, like: Tensor) -> Tensor:
    """What a user's function returns, with an array of floats as a tensor like its input."""
    if isinstance(result, np.ndarray) and np.issubdtype(result.dtype, np.floating):
        # `require` copies what PyTorch cannot share, such as a view with negative steps.
        result = torch.from_numpy(np.require(result, np.float64, ["C", "W"])).to(like)
    return result  # type: ignore[no-any-return]


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= _TOLERANCE * b.norm())
