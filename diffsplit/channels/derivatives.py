"""Closed-form derivatives for autograd, so that a tail never passes through 0 · ∞."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["with_derivatives"]

Elementwise = Callable[[Tensor], Tensor]


def with_derivatives(x: Tensor, value: Elementwise, *derivatives: Elementwise) -> Tensor:
    """``value(x)``, whose first, second, … derivatives autograd takes from ``derivatives``.

    Args:
        x: any shape.
        value: an elementwise function that keeps the shape of ``x``.
        derivatives: its derivatives in order. One more than these cannot be asked of autograd.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return value(x)
    function: Any = _Value if derivatives else _Last
    result: Tensor = function.apply(x, value, derivatives)
    return result


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Elementwise, derivatives: tuple[Elementwise, ...]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivatives = derivatives
        return value(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0] * with_derivatives(x, *ctx.derivatives), None, None


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Elementwise, derivatives: tuple[Elementwise, ...]
    ) -> Tensor:
        return value(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("this derivative of a channel has no closed form here")
