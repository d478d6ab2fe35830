"""The minimizer of ℓ(s) + μ/2 (s − z)² for one number s: Newton's method in a bracket.

Let t = |s − z| ≥ 0 be the distance from z in the direction in which ℓ falls, and m(t) = |ℓ'| there.
The minimizer solves μ t = m(t). Newton's method runs on the logarithm of this equation,

    f(log q) = log(μ t) − log m(t),   1/t = 1/q + 1/reach,

where ``reach`` is the distance from z to the minimum of ℓ, infinite if there is none. f is nearly
linear in log q where m decays like an exponential (a threshold, a logistic bit) and also where it
falls linearly to 0 at t = reach (a bin); Newton's method on μ t − m(t) itself needs one step for
every unit of an exponential tail. The bracket

    m(0)/(μ + max ℓ'') ≤ t,   q ≤ m(0)/μ

holds for convex ℓ. A step that leaves it, or is undefined because m has underflowed to 0, is
replaced by bisection in log q.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["distance_to_minimizer"]

_ITERATIONS = 30


def distance_to_minimizer(
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]],
    mu: Tensor,
    low: Tensor,
    high: Tensor,
    size: Tensor,
    reach: Tensor | float = torch.inf,
    spread: Tensor | float = 0.0,
    first: bool = False,
) -> Tensor:
    """The t in the bracket with μ t = m(t), to the rounding of z + t.

    Elements that have converged stay as they are, so that the result does not depend on the rest
    of the batch. The loop ends when all have, which is asked after every other step, because it
    waits for the device.

    Args:
        slopes: t ↦ m(t) and ℓ''.
        mu: weight μ > 0.
        low, high: bracket of t and q.
        size: |z|.
        reach: upper limit of t, where m = 0.
        spread: size of the differences from s that m is computed from, where |z| may be smaller.
        first: where μ t − m rises, falls and rises again within the bracket, take the first root,
            not the last.
    """
    limits = torch.finfo(mu.dtype)
    low = low.clamp(min=limits.tiny)
    low = low / (1 - low / reach).clamp(min=limits.eps)
    high = torch.maximum(torch.clamp(high, max=reach / limits.eps), low)
    q, f = low, torch.ones_like(low)
    for step in range(_ITERATIONS):
        odds = q / reach
        t = q / (1 + odds)
        m, curvature = slopes(t)
        residual, slope = mu * t - m, mu + curvature
        rounding = limits.eps * (slope * torch.maximum(size, t) + curvature * spread + 8 * m)
        settled = (residual.abs() <= rounding) & (slope > 0)
        settled |= high <= low * (1 + 4 * limits.eps)
        if step % 2 and (settled.is_meta or bool(settled.all())):
            break
        beyond = (residual > 0) | (slope < 0) if first else (residual > 0) & (slope > 0)
        low, high = torch.where(beyond, low, q), torch.where(beyond, q, high)
        last, f = f, (mu * t / m).log()
        newton = q * torch.exp(-f * (1 + odds) / (1 + t * curvature / m))
        inside = (newton >= low) & (newton <= high) & (f / last >= -1)
        following = torch.where(inside, newton, low.sqrt() * high.sqrt())
        q = torch.where(settled, q, following)
    return q / (1 + q / reach)
