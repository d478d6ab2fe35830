"""Products with a stored matrix, in the precision of the vector and not of the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["multiply", "multiply_transposed"]

_BLOCK = {"cpu": 2**21, "cuda": 2**27}
"""Entries that are converted at a time: few enough to stay in cache, or to launch few kernels."""


def _blocks(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Row blocks of the matrix in ``dtype``, through one buffer that is used again and again."""
    entries = _BLOCK.get(matrix.device.type, 2**24)
    height = min(len(matrix), max(1, entries // matrix.shape[1]))
    buffer = matrix.new_empty((height, matrix.shape[1]), dtype=dtype)
    for start in range(0, len(matrix), height):
        rows = slice(start, min(start + height, len(matrix)))
        yield rows, buffer[: rows.stop - start].copy_(matrix[rows])


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
