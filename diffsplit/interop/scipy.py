"""SciPy: its matrices and linear operators as ours, and ours as ``scipy.sparse.linalg`` ones.

A pair of functions of NumPy vectors becomes a SciPy ``LinearOperator`` first, with ``matvec`` and
``rmatvec``; functions of tensors go to `operators.from_function`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.interop.recognition import recognized
from diffsplit.operators import FunctionOperator, from_matrix
from diffsplit.operators.base import LinearOperator

try:
    from scipy.sparse import linalg
except ImportError as error:
    raise MissingDependencyError(
        "this needs SciPy, which is not installed: pip install 'diffsplit[scipy]'."
    ) from error

__all__ = ["from_scipy", "to_scipy"]


def from_scipy(matrix: Any, shape_in: Sequence[int] | None = None) -> LinearOperator:
    """A SciPy ``LinearOperator``, a sparse or a dense matrix (M, N) as an operator.

    It is `operators.from_matrix`, and where the rows prove orthogonal and of one length, as those
    of a sampling matrix are, the operator knows it, which makes data steps exact.

    Args:
        matrix: of real numbers; a ``LinearOperator`` needs ``rmatvec``, and computes on the CPU.
        shape_in: shape of one image, with N entries; ``(N,)`` if None.

    Raises:
        InputError: no finite real matrix, of another width than ``shape_in``, or without adjoint.
    """
    operator = from_matrix(matrix, shape_in)
    return recognized(operator)[0] if isinstance(operator, FunctionOperator) else operator


def to_scipy(operator: LinearOperator) -> linalg.LinearOperator:
    """An operator as a ``scipy.sparse.linalg.LinearOperator`` (M, N), of float64 vectors.

    Vectors are flattened images and measurements, in C order.

    Raises:
        InputError: no operator of this library.
    """
    if not isinstance(operator, LinearOperator):
        raise InputError(f"to_scipy takes an operator of diffsplit, not {type(operator).__name__}.")
    device = operator.device or "cpu"

    def columns(
        values: NDArray[np.float64], product: Any, shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        batch = torch.from_numpy(np.require(values.T, np.float64, ["C", "W"])).to(device)
        result: NDArray[np.float64] = product(batch.view(-1, *shape)).flatten(1).cpu().numpy().T
        return result

    def forward(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return columns(x, operator.apply, operator.shape_in)

    def backward(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return columns(y, operator.adjoint, operator.shape_out)

    return linalg.LinearOperator(
        shape=(operator.size_out, operator.size_in),
        dtype=np.float64,
        matvec=lambda x: forward(x.reshape(-1, 1)).ravel(),
        rmatvec=lambda y: backward(y.reshape(-1, 1)).ravel(),
        matmat=forward,
        rmatmat=backward,
    )
