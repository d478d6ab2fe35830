"""The exact data step  argmin_x −log p(y | A x) + μ/2 ‖x − z‖².

Where A Aᵀ = c I it is elementwise in measurement space,

    x = z + Aᵀ(s* − A z)/c,   s* = prox_{ℓ, μ/c}(A z),

one A and one Aᵀ; elsewhere it is Newton's method (see `newton_step`).
"""

from __future__ import annotations

from torch import Tensor

from diffsplit.data_steps.newton import newton_step
from diffsplit.errors import InputError
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["check_exact", "exact_step"]


def check_exact(problem: Problem) -> None:
    """Raise InputError where `exact_step` has no method for the problem."""
    channel = problem.channel
    if not isinstance(problem.operator.gram, ScaledIdentity) and not (
        channel.smooth and channel.convex
    ):
        raise InputError(
            f"the exact data step for {channel!r} needs an operator with orthogonal rows (a "
            "RandomizedTransform or a PixelMask), or a noise level above 0 and no bit flips."
        )


def exact_step(problem: Problem, y: Tensor, z: Tensor, mu: float) -> Tensor:
    """The minimiser.

    Args:
        y: measurements ``(B, *shape_out)``.
        z: the prior's estimate ``(B, *shape_in)``.
        mu: weight of the distance to ``z``, positive.

    Returns:
        ``(B, *shape_in)``.

    Raises:
        InputError: see `check_exact`.
    """
    check_exact(problem)
    operator = problem.operator
    if not isinstance(operator.gram, ScaledIdentity):
        return newton_step(problem, y, z, mu)
    c = operator.gram.mean
    s = operator.apply(z)
    return z + operator.adjoint(problem.channel.prox(s, y, mu / c) - s) / c
