"""A function of tensors together with its derivative, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["differentiated"]


def differentiated(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """f(x), detached, and the pullback u ↦ (∂f/∂x)ᵀ u.

    It may be called where gradients are switched off. The pullback can be called once; it frees
    the graph.
    """
    with torch.inference_mode(False), torch.enable_grad():
        origin = x.detach().clone().requires_grad_()
        value = function(origin)
    graph = [value]  # the only reference, so that all of the graph goes with it

    def pullback(u: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(graph.pop(), origin, u)
        return slope

    return value.detach(), pullback
