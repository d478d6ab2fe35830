"""Operators whose stored tensors are small, and follow the images by themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.operators.base import LinearOperator

__all__ = ["Constants", "PortableOperator"]


class Constants:
    """Named tensors in double precision, converted once for each dtype and device that asks.

    Args:
        tensors: float64 or complex128.
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._exact = tensors
        self._converted: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def like(self, name: str, x: Tensor) -> Tensor:
        """The tensor ``name`` on the device of ``x``, in its precision (at least float32)."""
        key = name, x.dtype, x.device
        if key not in self._converted:
            exact = self._exact[name]
            dtype = torch.promote_types(x.dtype, torch.float32)
            if exact.is_complex():
                dtype = dtype.to_complex()
            elif dtype.is_complex:
                dtype = dtype.to_real()
            with torch.inference_mode(False):  # else it could never meet a gradient later
                self._converted[key] = exact.to(x.device, dtype)
        return self._converted[key]


class PortableOperator(LinearOperator):
    """An operator that works wherever its images are, through `Constants`."""

    _place = torch.device("cpu")

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> PortableOperator:
        """Note where images will live; the stored tensors follow them, in their precision."""
        if device is not None:
            self._place = torch.device(device)
        return self

    def _device(self) -> torch.device:
        return self._place
