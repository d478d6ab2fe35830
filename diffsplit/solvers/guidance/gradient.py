"""What guidance shares: the gradient of a misfit through the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem

__all__ = ["clipped_vjp", "per_norm", "root_misfit_grad"]


def clipped_vjp(
    prior: Denoiser, x: Tensor, sigma: float
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x̂ = D(x, σ) clipped to the prior's bounds, and u ↦ (∂x̂/∂x)ᵀ u: one evaluation.

    An entry that the clip moved has no gradient, as with ``torch.clamp`` in the authors' code.
    """
    clean, pullback = prior.vjp(x, sigma)
    clipped = prior.clip(clean)
    inside = clipped == clean
    return clipped, lambda u: pullback(u * inside)


def per_norm(x: Tensor, norm: Tensor) -> Tensor:
    """``x`` ``(B, …)`` over the norm of each image ``(B,)``, and 0 where that is 0."""
    tiny = torch.finfo(x.dtype).tiny
    return x / norm.clamp(min=tiny).view(-1, *(1,) * (x.ndim - 1))


def root_misfit_grad(problem: Problem, x: Tensor, y: Tensor) -> Tensor:
    """∇_x √(2 m(x)), per image ``(B, *shape_in)``: one A and one Aᵀ.

    In Gaussian noise of whatever level m = ½‖A x − y‖², and this is ∇‖A x − y‖. For a channel with
    finitely many outcomes m = −log p(y | A x), which is not negative.
    """
    operator, channel = problem.operator, problem.channel
    s = operator.apply(x)
    if channel.gaussian_sigma is not None:
        slope = s - y
        twice = slope.square()
    else:
        slope, twice = channel.grad(s, y), 2 * channel.nll(s, y)
    return operator.adjoint(per_norm(slope, twice.flatten(1).sum(1).sqrt()))
