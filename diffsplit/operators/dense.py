"""Operators with a stored matrix: products in the precision of the vector, not of the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.operators.base import LinearOperator
from diffsplit.operators.checks import check_batch

__all__ = ["DenseOperator", "multiply", "multiply_transposed"]

_BLOCK = {"cpu": 2**21, "cuda": 2**27}
"""Entries that are converted at a time: few enough to stay in cache, or to launch few kernels."""

_GRAM_ROWS = 8192
"""M up to which A Aᵀ is worth its memory, 268 MB in float32 and twice that in float64."""


class _Kept(NamedTuple):
    """A Aᵀ, and the matrix and its version that it was computed from."""

    gram: Tensor
    matrix: Tensor
    version: int

    def serves(self, matrix: Tensor, dtype: torch.dtype) -> bool:
        current = self.matrix is matrix and self.version == _version(matrix)
        return current and self.gram.dtype == dtype


class DenseOperator(LinearOperator):
    """What a `GaussianMatrix` and a user's matrix share.

    Attributes:
        matrix: A, ``(M, N)``.
    """

    matrix: Tensor
    _known_gram: _Kept | None = None

    def _apply(self, x: Tensor) -> Tensor:
        return multiply(self.matrix, x.flatten(1))

    def _adjoint(self, y: Tensor) -> Tensor:
        return multiply_transposed(self.matrix, y).reshape(-1, *self.shape_in)

    def apply_gram(self, y: Tensor) -> Tensor:
        """A Aᵀ y ``(B, M)``; with M ≤ N and M ≤ 8192 A Aᵀ is found at the first call and kept.

        Raises:
            InputError: ``y`` has another shape, or is not of floats.
        """
        if self.size_out > min(_GRAM_ROWS, self.size_in):
            return super().apply_gram(y)
        check_batch(y, self.shape_out, "A Aᵀ takes measurements")
        dtype = torch.promote_types(torch.promote_types(self.matrix.dtype, y.dtype), torch.float32)
        if self._known_gram is None or not self._known_gram.serves(self.matrix, dtype):
            gram = _outer(self.matrix, dtype)
            self._known_gram = _Kept(gram, self.matrix, _version(self.matrix))
        return multiply(self._known_gram.gram, y)


def multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """``x @ matrix.T`` for ``(M, N)`` and ``(B, N)``, in the wider dtype of the two.

    A matrix stored in a lower precision is never converted as a whole, nor copied.
    """
    dtype = torch.promote_types(matrix.dtype, x.dtype)
    work = x.to(dtype)
    if dtype == matrix.dtype:
        return (work @ matrix.T).to(x.dtype)
    result = work.new_empty((len(x), len(matrix)))
    for rows, block in _blocks(matrix, dtype):
        result[:, rows] = work @ block.T
    return result.to(x.dtype)


def multiply_transposed(matrix: Tensor, y: Tensor) -> Tensor:
    """``y @ matrix`` for ``(M, N)`` and ``(B, M)``, in the wider dtype of the two."""
    dtype = torch.promote_types(matrix.dtype, y.dtype)
    work = y.to(dtype)
    if dtype == matrix.dtype:
        return (work @ matrix).to(y.dtype)
    result = work.new_zeros((len(y), matrix.shape[1]))
    for rows, block in _blocks(matrix, dtype):
        result += work[:, rows] @ block
    return result.to(y.dtype)


@torch.no_grad()
def _outer(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix @ matrix.T`` in ``dtype``, converting a block of columns at a time."""
    with torch.inference_mode(False), torch.autocast(matrix.device.type, enabled=False):
        if dtype == matrix.dtype:
            return matrix @ matrix.T
        width = max(1, _entries(matrix) // len(matrix))
        result = matrix.new_zeros((len(matrix), len(matrix)), dtype=dtype)
        for columns in torch.split(matrix, width, dim=1):
            block = columns.to(dtype)
            result.addmm_(block, block.T)
        return result


def _version(matrix: Tensor) -> int:
    """A number that grows when the matrix is written to."""
    return 0 if matrix.is_inference() else matrix._version


def _entries(matrix: Tensor) -> int:
    return _BLOCK.get(matrix.device.type, 2**24)


def _blocks(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Row blocks of the matrix in ``dtype``, through one buffer that is used again and again."""
    height = min(len(matrix), max(1, _entries(matrix) // matrix.shape[1]))
    buffer = matrix.new_empty((height, matrix.shape[1]), dtype=dtype)
    for start in range(0, len(matrix), height):
        rows = slice(start, min(start + height, len(matrix)))
        yield rows, buffer[: rows.stop - start].copy_(matrix[rows])
