"""The inexact data step of Diff-OneBit: a fixed number of Adam steps on Eq. (26).

    minimise over x, from x = z:   Σ_i ℓ(a_iᵀx) + μ/2 ‖x − z‖²

The objective is a sum, not a mean, and its gradient Aᵀ ℓ'(A x) + μ (x − z) is written out: no
autograd graph is built.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.problem import Problem

__all__ = ["adam_step"]


def adam_step(
    problem: Problem, y: Tensor, z: Tensor, mu: float, steps: int = 100, lr: float = 0.25
) -> Tensor:
    """Where ``steps`` Adam steps of size ``lr`` from ``z`` end.

    Args:
        y: measurements ``(B, *shape_out)``.
        z: the prior's estimate ``(B, *shape_in)``.
        mu: weight of the distance to ``z``.

    Returns:
        ``(B, *shape_in)``.
    """
    x = torch.nn.Parameter(z.contiguous().clone(), requires_grad=False)
    optimizer = torch.optim.Adam([x], lr=lr, fused=True)
    for _ in range(steps):
        # The fused step takes the two in the order of memory, and A may be a user's.
        x.grad = torch.add(problem.grad(x, y), x - z, alpha=mu).contiguous()
        optimizer.step()
    return x.data
