"""Operators with a stored matrix: a Gaussian one, or a user's.

Products are computed in the precision of the image, if that is the wider one. A matrix that is
stored in a lower precision is then converted block by block, never as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffsplit.arguments import brief
from diffsplit.devices import checked_device, memory_of
from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.checks import choice, integer, seed_of, shape_of, tensor_of
from diffsplit.operators.gram import Gram, IIDRows, ScaledIdentity
from diffsplit.operators.spectrum import MatrixSpectrum, Spectrum

__all__ = ["MAX_ENTRIES", "DenseOperator", "GaussianMatrix", "MatrixOperator", "columns_of"]

MAX_ENTRIES = 2**32
"""The largest M·N of a Gaussian matrix that is stored: 8.6 GB in half precision."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_MAX_UNKNOWNS = 4096  # up to here a dense decomposition fits memory and patience

_BLOCK = {"cpu": 2**20, "cuda": 2**27}
"""Entries that are converted at a time: few enough to stay in cache, or to launch few kernels."""
_COLUMNS = {"cpu": 2**16}
"""The most columns of such a block, so that what a product of several images adds to stays there,
too; whole rows elsewhere."""

_GRAM_ROWS = 8192
"""M up to which A Aᵀ is worth its memory, 268 MB in float32 and twice that in float64."""

_NORM_ROWS = 64
"""Rows whose norms are taken at once, in float64."""

_TOLERANCE = 1e-3  # of announced orthogonality; float32 stays well below


class DenseOperator(LinearOperator):
    """What a `GaussianMatrix` and a user's matrix share.

    A Aᵀ y takes the matrix A Aᵀ if M ≤ N and M ≤ 8192; it is found at the first call and kept.

    Attributes:
        matrix: A, ``(M, N)``.
    """

    matrix: Tensor
    _known_gram: tuple[Tensor, Tensor, int] | None = None  # A Aᵀ, of which matrix and version

    def _move(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        self._known_gram = None  # else it would keep the matrix as it was
        super()._move(device, dtype)

    def _apply(self, x: Tensor) -> Tensor:
        return _multiply(self.matrix, x.flatten(1))

    def _adjoint(self, y: Tensor) -> Tensor:
        return _multiply_transposed(self.matrix, y).reshape(-1, *self.shape_in)

    def row_square_norms(self) -> Tensor:
        parts = torch.split(self.matrix, _NORM_ROWS)
        return torch.cat([part.double().square().sum(1) for part in parts])

    def _apply_gram(self, y: Tensor) -> Tensor:
        if self.size_out > min(_GRAM_ROWS, self.size_in):
            return super()._apply_gram(y)
        matrix, known = self.matrix, self._known_gram
        dtype = torch.promote_types(torch.promote_types(matrix.dtype, y.dtype), torch.float32)
        version = 0 if matrix.is_inference() else matrix._version  # grows when it is written to
        if (
            known is None
            or known[0].dtype != dtype
            or known[1] is not matrix
            or known[2] != version
        ):
            known = self._known_gram = _outer(matrix, dtype), matrix, version
        return _multiply(known[0], y)


class GaussianMatrix(DenseOperator):
    """A with independent entries N(0, 1/M): rows of squared norm N/M, and E AᵀA = I.

    Drawn in float32 on the CPU, row by row, so that a seed gives the same matrix on every device;
    a matrix with more rows starts, but for the scale, with the rows of a smaller one.

    Args:
        shape: shape of one image, N entries.
        rows: M ≥ 1, the number of measurements.
        seed: from 0 to 2³² − 1.
        dtype: how the matrix is stored; ``torch.float16`` halves the memory for relative errors of
            about 3e-4 in A, which is then another fixed matrix, known exactly.
        device: where it is stored.

    Raises:
        InputError: bad arguments, or M·N above `MAX_ENTRIES` or the memory.
    """

    _kind = "gaussian"

    def __init__(
        self,
        shape: Sequence[int],
        rows: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.shape_in = shape_of(shape)
        size = self.size_in
        rows = integer(rows, "the number of rows", 1, MAX_ENTRIES)
        if rows * size > MAX_ENTRIES:
            raise InputError(
                f"a Gaussian matrix of {rows} × {size} is more than {MAX_ENTRIES:,} entries; "
                "use fewer rows, or RandomizedTransform, which stores no matrix."
            )
        if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES:
            raise InputError(
                f"a Gaussian matrix is stored in floats of 16 to 64 bits, not {brief(dtype)}."
            )
        self.shape_out = (rows,)
        self.gram = IIDRows(size / rows)
        self.seed = seed_of(seed)
        self._given = {"rows": rows, "seed": self.seed}
        generator = seeded(self.seed, "GaussianMatrix")
        self.matrix = _allocate(rows, size, dtype, checked_device(device))
        drawn = torch.empty(size, dtype=torch.float32)
        for row in self.matrix:
            row.copy_(torch.randn(size, generator=generator, out=drawn).div_(math.sqrt(rows)))

    def _move(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        # A higher precision would cost memory and bring back nothing; products have it already.
        if dtype is not None and torch.promote_types(dtype, self.matrix.dtype) != self.matrix.dtype:
            dtype = None
        super()._move(device, dtype)

    def config(self) -> dict[str, Any]:
        return super().config() | {"dtype": str(self.matrix.dtype).removeprefix("torch.")}


class MatrixOperator(DenseOperator):
    """A dense matrix. With at most 4096 columns it has a spectrum, decomposed in float64.

    Args:
        matrix: ``(M, N)``, real floats, a tensor, a NumPy array or a list of rows.
        shape_in: shape of one image, with N entries; ``(N,)`` if None.
        rows: what you know of them, for message passing: "iid" for a matrix of independent entries
            of mean 0 and one variance (not checked), "orthogonal" for orthogonal rows of one
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
        self.matrix = matrix = tensor_of(matrix, "a matrix (M, N)")
        if matrix.ndim != 2 or matrix.numel() == 0 or not matrix.is_floating_point():
            raise InputError(
                f"a matrix (M, N) of real floats was expected, not {matrix.dtype} "
                f"{tuple(matrix.shape)}; convert yours."
            )
        self.shape_in, self.shape_out = columns_of(matrix.shape, shape_in), (len(matrix),)
        trace = sum(float(row.double().square().sum()) for row in matrix)
        if not 0 < trace < math.inf:
            raise InputError("the matrix is all zero, or holds NaN or infinity.")
        self.gram = self._gram_of(rows, trace / len(matrix))

    def _gram_of(self, rows: Any, mean: float) -> Gram:
        if rows is None:
            return Gram(mean)
        if choice(rows, "what is known of the rows", ("iid", "orthogonal")) == "iid":
            return IIDRows(mean)
        generator = seeded(0, "rows")
        probe = torch.randn((4, self.size_out), generator=generator).to(self.matrix)
        error = self._apply(self._adjoint(probe)) - mean * probe
        if not error.norm() <= _TOLERANCE * mean * probe.norm():
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


def columns_of(shape: Sequence[int], shape_in: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of the images that a matrix of ``shape`` (M, N) takes: N entries."""
    result = shape_of([shape[1]] if shape_in is None else shape_in)
    if math.prod(result) != shape[1]:
        raise InputError(
            f"a matrix with {shape[1]} columns does not fit images of shape {result}, which have "
            f"{math.prod(result)} entries."
        )
    return result


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """``x @ matrix.T`` for ``(M, N)`` and ``(B, N)``, in the wider dtype of the two."""
    work = x.to(torch.promote_types(matrix.dtype, x.dtype))
    if work.dtype == matrix.dtype:
        return (work @ matrix.T).to(x.dtype)
    result = work.new_zeros(len(work), len(matrix))
    for rows, columns, block in _blocks(matrix, work.dtype):
        result[:, rows].addmm_(work[:, columns], block.T)
    return result.to(x.dtype)


def _multiply_transposed(matrix: Tensor, y: Tensor) -> Tensor:
    """``y @ matrix`` for ``(M, N)`` and ``(B, M)``, in the wider dtype of the two."""
    work = y.to(torch.promote_types(matrix.dtype, y.dtype))
    if work.dtype == matrix.dtype:
        return (work @ matrix).to(y.dtype)
    result = work.new_zeros(len(work), matrix.shape[1])
    for rows, columns, block in _blocks(matrix, work.dtype):
        result[:, columns].addmm_(work[:, rows], block)
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


def _entries(matrix: Tensor) -> int:
    return _BLOCK.get(matrix.device.type, 2**24)


def _blocks(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and the block there in ``dtype``, through one buffer that is used again."""
    width = min(matrix.shape[1], _COLUMNS.get(matrix.device.type, matrix.shape[1]))
    height = min(len(matrix), max(1, _entries(matrix) // width))
    buffer = matrix.new_empty(height * width, dtype=dtype)
    for left in range(0, matrix.shape[1], width):
        columns = slice(left, min(left + width, matrix.shape[1]))
        for top in range(0, len(matrix), height):
            rows = slice(top, min(top + height, len(matrix)))
            part = matrix[rows, columns]
            yield rows, columns, buffer[: part.numel()].view(part.shape).copy_(part)


def _allocate(rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    needed = rows * size * dtype.itemsize
    try:
        # Else the system might kill the process.
        if device.type == "cpu" and needed > memory_of(device):
            raise MemoryError
        return torch.empty(rows, size, dtype=dtype, device=device)
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"no room for the {needed / 1e9:.1f} GB of a Gaussian matrix on {device}; use float16, "
            "fewer rows, or RandomizedTransform, which stores no matrix."
        ) from error
