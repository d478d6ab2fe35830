"""The image itself: what is left of an inverse problem is the noise of the channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.operators.checks import shape_of
from diffsplit.operators.constants import PortableOperator
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.operators.spectrum import Spectrum

__all__ = ["Identity"]


class Identity(PortableOperator):
    """A = I: with a Gaussian channel, denoising.

    Args:
        shape: shape of one image.

    Raises:
        InputError: no shape.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape_in = self.shape_out = shape_of(shape)
        self.gram = ScaledIdentity(1.0)
        self.stride = 1 if len(self.shape_in) == 3 else None

    def _apply(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def _make_spectrum(self) -> Spectrum:
        return _IdentitySpectrum(self.shape_in, self._device())

    def config(self) -> dict[str, Any]:
        return {"kind": "identity", "shape": list(self.shape_in)}


class _IdentitySpectrum(Spectrum):
    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = self.shape_in = self.shape_out = shape
        self.singular_values = torch.ones((1,) * len(shape), dtype=torch.float64, device=device)

    def _analyze(self, x: Tensor) -> Tensor:
        return x.clone()

    def _synthesize(self, c: Tensor) -> Tensor:
        return c.clone()

    def _analyze_measurement(self, y: Tensor) -> Tensor:
        return y.clone()

    def _synthesize_measurement(self, c: Tensor) -> Tensor:
        return c.clone()
