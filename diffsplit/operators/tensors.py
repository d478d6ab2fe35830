"""Linear maps under automatic differentiation, and constants in the precision of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Constants", "Map", "linear"]

Map = Callable[[Tensor], Tensor]

"""A linear map of a batch."""


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, forward: Map, backward: Map) -> Tensor:
        return forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        _, ctx.forward_map, ctx.backward_map = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return linear(gradients[0], ctx.backward_map, ctx.forward_map), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return linear(tangents[0], ctx.forward_map, ctx.backward_map)


def linear(x: Tensor, forward: Map, backward: Map) -> Tensor:
    """``forward(x)``, differentiable any number of times, with ``backward`` as its transpose.

    Nothing is kept for the backward pass: what PyTorch would keep by itself includes every
    converted block of a matrix in half precision, four times the memory that the matrix has.
    """
    result: Tensor = _Linear.apply(x, forward, backward)  # type: ignore[no-untyped-call]
    return result


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
            dtype = torch.promote_types(x.dtype.to_real(), torch.float32)
            if exact.is_complex():
                dtype = dtype.to_complex()
            with torch.inference_mode(False):  # else it could never meet a gradient later
                self._converted[key] = exact.to(x.device, dtype)
        return self._converted[key]
