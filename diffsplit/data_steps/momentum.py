"""Gradient descent with momentum on the misfit alone (DCDP, Algorithm 1, line 3).

    vel ← β vel + ∇ℓ(x),   x ← x − η vel,   from vel = 0

For a Gaussian channel with σ = 1 the gradient is Aᵀ(A x − y).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.problem import Problem

__all__ = ["momentum_steps"]


def momentum_steps(
    problem: Problem, y: Tensor, x: Tensor, steps: int, step_size: float, momentum: float = 0.9
) -> Tensor:
    """``steps`` steps of size η = ``step_size`` from ``x``, with a fresh velocity.

    Args:
        y: measurements ``(B, *shape_out)``.
        x: where to start ``(B, *shape_in)``.

    Returns:
        ``(B, *shape_in)``.
    """
    velocity = torch.zeros_like(x)
    for _ in range(steps):
        velocity = momentum * velocity + problem.grad(x, y)
        x = x - step_size * velocity
    return x
