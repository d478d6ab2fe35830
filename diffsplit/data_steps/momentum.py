"""Gradient descent with momentum on the misfit alone (DCDP, Algorithm 1, line 3).

    vel ← β vel + ∇f(x),   x ← x − η vel,   from vel = 0

With Gaussian noise f(x) = ½‖A x − y‖², whatever its level σ, as in the paper: σ would only rescale
η. With any other channel f(x) = −log p(y | A x), and ∇f = Aᵀ ℓ'(A x). The gradient is written out,
and no autograd graph is built. On a quadratic the iteration converges for η‖A‖² < 2(1 + β) and
0 ≤ β < 1, and diverges beyond (Polyak 1964).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsplit.channels.base import Channel
from diffsplit.errors import InputError
from diffsplit.operators.base import LinearOperator
from diffsplit.problem import Problem

__all__ = [
    "check_gradient",
    "check_step_size",
    "default_step_size",
    "descend",
    "matched_step_size",
    "misfit_grad",
    "momentum_steps",
]


def misfit_grad(problem: Problem, x: Tensor, y: Tensor) -> Tensor:
    """∇f(x) ``(B, *shape_in)``: Aᵀ(A x − y) with Gaussian noise, Aᵀ ℓ'(A x) otherwise."""
    return problem.operator.adjoint(problem.residual(x, y))


def descend(
    gradient: Callable[[Tensor], Tensor], x: Tensor, steps: int, step_size: float, momentum: float
) -> Tensor:
    """Where ``steps`` steps along ``-gradient`` from ``x`` end, with a fresh velocity."""
    x, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        velocity.mul_(momentum).add_(gradient(x))
        x.sub_(velocity, alpha=step_size)
    return x


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
    return descend(lambda x: misfit_grad(problem, x, y), x, steps, step_size, momentum)


def check_gradient(channel: Channel) -> None:
    """Raise InputError where the misfit has no useful gradient."""
    if not channel.smooth and channel.gaussian_sigma is None:
        raise InputError(
            f"gradient steps need the gradient of the likelihood, which {channel!r} lacks; "
            "give it a noise level sigma > 0, or use DiffEP or DiffOneBit(data_step='exact')."
        )


def check_step_size(operator: LinearOperator, step_size: float, momentum: float) -> None:
    """Raise InputError where the iteration on ½‖A x − y‖² diverges, naming the largest step."""
    largest = 2 * (1 + momentum) / operator.norm() ** 2
    if not step_size < largest:
        raise InputError(
            f"steps of size {step_size:g} diverge: with momentum {momentum:g} and an operator of "
            f"norm {operator.norm():.4g} the step size must stay below {largest:.4g}; choose a "
            "smaller one."
        )


def default_step_size(problem: Problem, y: Tensor) -> float:
    """η = 1/(‖A‖² L), L the largest curvature of ℓ (1 for ½‖A x − y‖²): safe for any operator.

    L is read off a grid of |s| from 1e-3 to 1e3 for the values that ``y`` takes.
    """
    steepest = 1.0
    if problem.channel.gaussian_sigma is None:
        half = torch.logspace(-3, 3, 121, dtype=torch.float64, device=y.device)
        s = torch.cat([-half, half])[:, None]
        values = torch.unique(y)
        labels = values.double() if values.is_floating_point() else values
        steepest = float(problem.channel.curvature(s, labels.expand(len(s), -1)).max())
    if not (math.isfinite(steepest) and steepest > 0):
        raise InputError(f"{problem.channel!r} has no bounded curvature; give a step_size.")
    return 1 / (problem.operator.norm() ** 2 * steepest)


def matched_step_size(sigma: float, steps: int, momentum: float = 0.9) -> float:
    """η at which ``steps`` steps trust the start as much as a prior N(x, σ² I) would.

    Against a gradient g that hardly changes the steps move x by −η c g, with
    c = Σ_{k=1…τ} (1 − β^k)/(1 − β), and the penalty ‖x − x_0‖²/(2σ²) would stop it at −σ² g.
    """
    carried = momentum * (1 - momentum**steps) / (1 - momentum)
    return sigma**2 * (1 - momentum) / (steps - carried)
