"""Mixing the channels of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsplit.arguments import brief
from diffsplit.errors import InputError
from diffsplit.operators.base import PortableOperator
from diffsplit.operators.checks import MAX_SIZE, real, shape_of
from diffsplit.operators.gram import Gram, ScaledIdentity
from diffsplit.operators.spectrum import MatrixSpectrum, Spectrum, is_scaled_identity
from diffsplit.operators.tensors import Constants

__all__ = ["ChannelMix", "Grayscale"]

_MAX_CHANNELS = 256
_LUMA = (0.299, 0.587, 0.114)  # Rec. ITU-R BT.601


class ChannelMix(PortableOperator):
    """The same matrix applied to the channels of every pixel.

    Args:
        shape: ``(C, H, W)``, at most 256 channels.
        matrix: ``(K, C)``, a tensor, an array or a list of rows, with at most 256 rows.

    Attributes:
        matrix: ``(K, C)``, float64 on the CPU.

    Raises:
        InputError: bad arguments, or a matrix that does not fit, is all zero or not finite.
    """

    _kind = "channel_mix"

    def __init__(self, shape: Sequence[int], matrix: Tensor | Sequence[Sequence[float]]) -> None:
        self.shape_in = shape_of(shape, ndim=3)
        channels, height, width = self.shape_in
        self.matrix = _checked(matrix, channels)
        self.shape_out = (len(self.matrix), height, width)
        if self.size_out > MAX_SIZE:
            raise InputError(f"the mixed images have more than {MAX_SIZE:,} entries; use crops.")
        self._given = {"matrix": self.matrix.tolist()}
        self._constants = Constants(matrix=self.matrix)
        gram = self.matrix @ self.matrix.T
        mean = float(gram.diagonal().mean())
        self.gram = (ScaledIdentity if is_scaled_identity(gram, mean) else Gram)(mean)

    def _apply(self, x: Tensor) -> Tensor:
        matrix = self._constants.like("matrix", x)
        return torch.einsum("kc,bchw->bkhw", matrix, x.to(matrix.dtype)).to(x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        matrix = self._constants.like("matrix", y)
        return torch.einsum("kc,bkhw->bchw", matrix, y.to(matrix.dtype)).to(y.dtype)

    def _make_spectrum(self) -> Spectrum:
        matrix = self.matrix.to(self.device or self.matrix.device)
        return MatrixSpectrum(matrix, self.shape_in, self.shape_out)


class Grayscale(ChannelMix):
    """The luma 0.299 R + 0.587 G + 0.114 B of Rec. 601: ``(3, H, W)`` to ``(1, H, W)``.

    Args:
        shape: ``(3, H, W)``.

    Raises:
        InputError: the image does not have three channels.
    """

    _kind = "grayscale"

    def __init__(self, shape: Sequence[int]) -> None:
        shape = shape_of(shape, ndim=3)
        if shape[0] != 3:
            raise InputError(
                f"grayscale images are made of three channels, not of {shape[0]}; "
                "use ChannelMix with weights of your own."
            )
        super().__init__(shape, [_LUMA])
        self._given = {}


def _checked(matrix: Any, channels: int) -> Tensor:
    """The matrix in float64, when it is finite and fits."""
    if channels > _MAX_CHANNELS:
        raise InputError(f"channels are mixed of at most {_MAX_CHANNELS}, not of {channels}.")
    rows = matrix.tolist() if isinstance(matrix, Tensor | np.ndarray) else matrix
    if (
        not isinstance(rows, Sequence)
        or not 1 <= len(rows) <= _MAX_CHANNELS
        or not all(isinstance(r, list | tuple) and len(r) == channels for r in rows)
    ):
        raise InputError(
            f"a mixing matrix for {channels} channels has 1 to {_MAX_CHANNELS} rows of {channels} "
            f"numbers, not {brief(matrix)} of another shape."
        )
    numbers = [[real(value, "every entry of a mixing matrix") for value in row] for row in rows]
    result = torch.tensor(numbers, dtype=torch.float64)
    if not 1e-18 < float(result.abs().max()) < 1e18:
        raise InputError("a mixing matrix has entries up to 1e18, and not all below 1e-18.")
    return result
