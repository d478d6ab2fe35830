"""The compressed-sensing papers' operator: a matrix of independent Gaussian entries."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.checks import integer, seed_of, shape_of
from diffsplit.operators.dense import DenseOperator
from diffsplit.operators.gram import IIDRows

__all__ = ["MAX_ENTRIES", "GaussianMatrix"]

MAX_ENTRIES = 2**32
"""The largest M·N that is stored: 8.6 GB in half precision."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class GaussianMatrix(DenseOperator):
    """A with independent entries N(0, 1/M): rows of squared norm N/M, and E AᵀA = I.

    Drawn in float32 on the CPU, row by row, so that a seed gives the same matrix on every device;
    a matrix with more rows starts, but for the scale, with the rows of a smaller one. Products are
    computed in the dtype of the image, whatever the matrix is stored in.

    Args:
        shape: shape of one image, N entries.
        rows: M ≥ 1, the number of measurements.
        seed: from 0 to 2³² − 1.
        dtype: how the matrix is stored; ``torch.float16`` halves the memory for relative errors of
            about 3e-4 in A, which is then another fixed matrix, known exactly.
        device: where it is stored.

    Attributes:
        matrix: A, ``(M, N)``.

    Raises:
        InputError: bad arguments, or M·N above `MAX_ENTRIES` or the memory.
    """

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
        if dtype not in _DTYPES:
            raise InputError(
                f"a Gaussian matrix is stored in floats of 16 to 64 bits, not {dtype}."
            )
        self.shape_out = (rows,)
        self.gram = IIDRows(size / rows)
        self.seed = seed_of(seed)
        generator = seeded(self.seed, "GaussianMatrix")
        self.matrix = _allocate(rows, size, dtype, torch.device(device))
        for row in self.matrix:
            row.copy_(torch.randn(size, generator=generator, dtype=torch.float32) / math.sqrt(rows))

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> GaussianMatrix:
        """Move the matrix, or store it in a lower precision.

        A higher one is ignored: it would cost memory and bring back nothing, and products have the
        precision of the image already.
        """
        if dtype is not None and torch.promote_types(dtype, self.matrix.dtype) != self.matrix.dtype:
            dtype = None
        self.matrix = self.matrix.to(device=device, dtype=dtype)
        self._forget()
        return self

    def config(self) -> dict[str, Any]:
        return {
            "kind": "gaussian",
            "shape": list(self.shape_in),
            "rows": self.size_out,
            "seed": self.seed,
            "dtype": str(self.matrix.dtype).removeprefix("torch."),
        }


def _allocate(rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    needed = rows * size * dtype.itemsize
    advice = "use float16, fewer rows, or RandomizedTransform, which stores no matrix."
    if device.type == "cpu" and needed > _memory():  # else the system might kill the process
        raise InputError(f"the Gaussian matrix needs {needed / 1e9:.1f} GB of memory; {advice}")
    try:
        return torch.empty(rows, size, dtype=dtype, device=device)
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"no room for the {needed / 1e9:.1f} GB of a Gaussian matrix on {device}; {advice}"
        ) from error


def _memory() -> float:
    """Bytes of memory of this machine, infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf
