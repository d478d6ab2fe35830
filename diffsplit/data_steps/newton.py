"""The exact data step where A Aᵀ is not a multiple of I: Newton's method in measurement space.

The minimiser of Σ ℓ(a_iᵀx) + μ/2 ‖x − z‖² is x = z + Aᵀw with w = −ℓ'(s)/μ, s = A x. With
q = A z, K = A Aᵀ and D = diag ℓ''(s), s = q + K w, a Newton step Δ solves

    (K + μ D⁻¹) Δ = −D⁻¹ (ℓ'(s) + μ w),

M unknowns instead of N, by conjugate gradients with the preconditioner c̄ + μ D⁻¹, which leaves a
condition number of at most λmax/λmin of K whatever μ is. A line search over halved steps costs no
operator call, since s is linear in w.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffsplit.problem import Problem

__all__ = ["newton_step"]

NEWTON_ITERATIONS = 30
CG_ITERATIONS = 60
HALVINGS = 12


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def newton_step(problem: Problem, y: Tensor, z: Tensor, mu: float, tol: float = 1e-5) -> Tensor:
    """The minimiser, for a convex and smooth channel.

    Args:
        y: measurements ``(B, *shape_out)``.
        z: the prior's estimate ``(B, *shape_in)``.
        mu: weight of the distance to ``z``, positive.
        tol: bound on ‖ℓ'(s) + μ w‖ / ‖ℓ'(A z)‖ per image; the iteration also ends where
            the dtype allows no more.

    Returns:
        ``(B, *shape_in)``.
    """
    operator, channel = problem.operator, problem.channel
    shape = (-1, *operator.shape_out)
    labels = y.flatten(1)

    def gram(v: Tensor) -> Tensor:
        return operator.apply(operator.adjoint(v.view(shape))).flatten(1)

    q = operator.apply(z).flatten(1)
    w, kw = torch.zeros_like(q), torch.zeros_like(q)
    residual = channel.grad(q, labels)
    target = tol * residual.norm(dim=1, keepdim=True)
    halves = 0.5 ** torch.arange(HALVINGS, dtype=q.dtype, device=q.device).view(-1, 1, 1)
    for _ in range(NEWTON_ITERATIONS):
        curvature = channel.curvature(q + kw, labels).clamp(min=1e-10 * mu / operator.gram.mean)
        delta, k_delta = _conjugate_gradients(
            gram, mu / curvature, -residual / curvature, operator.gram.mean
        )
        # φ(w + αΔ) = Σ ℓ(q + K(w + αΔ)) + μ/2 (w + αΔ)ᵀ K (w + αΔ), for all α at once
        trial_w, trial_kw = w + halves * delta, kw + halves * k_delta
        values = channel.nll(q + trial_kw, labels).sum(2) + mu / 2 * (trial_w * trial_kw).sum(2)
        best = values.nan_to_num(nan=torch.inf).argmin(0)
        alpha = halves.flatten()[best].unsqueeze(1)
        w, kw = w + alpha * delta, kw + alpha * k_delta
        residual = channel.grad(q + kw, labels) + mu * w
        if bool((residual.norm(dim=1, keepdim=True) <= target).all()):
            break
    return z + operator.adjoint(w.view(shape))


def _conjugate_gradients(
    gram: Callable[[Tensor], Tensor], ridge: Tensor, b: Tensor, mean: float
) -> tuple[Tensor, Tensor]:
    """Solve (K + diag ridge) u = b for each image; returns u and K u."""
    scale = 1 / (mean + ridge)
    u, ku = torch.zeros_like(b), torch.zeros_like(b)
    r = b
    p = scale * r
    rho = _dot(r, p)
    stop = 1e-8 * rho
    for _ in range(CG_ITERATIONS):
        kp = gram(p)
        hp = kp + ridge * p
        alpha = rho / _dot(p, hp).clamp(min=torch.finfo(b.dtype).tiny)
        u, ku, r = u + alpha * p, ku + alpha * kp, r - alpha * hp
        preconditioned = scale * r
        rho, previous = _dot(r, preconditioned), rho
        if bool((rho <= stop).all()):
            break
        p = preconditioned + rho / previous.clamp(min=torch.finfo(b.dtype).tiny) * p
    return u, ku
