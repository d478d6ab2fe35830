"""The exact data step  argmin_x −log p(y | A x) + μ/2 ‖x − z‖².

Where A Aᵀ = c I it is elementwise in measurement space,

    x = z + Aᵀ(s* − A z)/c,   s* = prox_{ℓ, μ/c}(A z),

one A and one Aᵀ. With Gaussian noise of variance σ² and A = U diag(s) Vᵀ it is closed form,

    x = V (s² + μσ²)⁻¹ (s Uᵀy + μσ² Vᵀz);

elsewhere it is Newton's method (see `newton_step`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.data_steps.newton import newton_step
from diffsplit.errors import InputError
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["check_exact", "exact_step"]


def check_exact(problem: Problem) -> None:
    """Raise InputError where `exact_step` has no method for the problem."""
    channel = problem.channel
    direct = isinstance(problem.operator.gram, ScaledIdentity) or _is_closed_form(problem)
    if not direct and not (channel.smooth and channel.convex):
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
    if _is_closed_form(problem):
        return _least_squares(problem, y, z, mu)
    if not isinstance(operator.gram, ScaledIdentity):
        return newton_step(problem, y, z, mu)
    c = operator.gram.mean
    s = operator.apply(z)
    return z + operator.adjoint(problem.channel.prox(s, y, mu / c) - s) / c


def _is_closed_form(problem: Problem) -> bool:
    """Gaussian noise, noiseless included, on an operator whose spectrum is worth using."""
    operator = problem.operator
    return (
        problem.channel.gaussian_sigma is not None
        and not isinstance(operator.gram, ScaledIdentity)
        and operator.has_spectrum
    )


def _least_squares(problem: Problem, y: Tensor, z: Tensor, mu: float) -> Tensor:
    sigma = problem.channel.gaussian_sigma
    assert sigma is not None  # the caller saw to it
    spectrum = problem.operator.spectrum()
    s, ridge = spectrum.singular_values.to(z), mu * sigma**2
    c = spectrum.analyze(z)
    gain = torch.where(s > 0, s / (s.square() + ridge).clamp(min=torch.finfo(z.dtype).tiny), 0)
    return z + spectrum.synthesize(gain * (spectrum.analyze_measurement(y) - s * c))
