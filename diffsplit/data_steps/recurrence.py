"""Many momentum steps at once: the recurrence on singular values, run once and applied once.

On ½‖A x − y‖² the iteration of `momentum_steps` is linear and decouples in the singular basis.
With A = U diag(s) Vᵀ, a coefficient c of Vᵀx and the coefficient d of Uᵀy that goes with it,

    c_τ = p c_0 + q s d,    p = 1 − s² q,
    q = u_τ of   w ← β w + 1 − s² u,   u ← u + η w,   from u = w = 0,

so that τ steps cost two transforms instead of 2τ operator calls, and the recurrence about log₂ τ
squarings of the affine map (w, u) ↦ (w, u). Where A Aᵀ = c I there is but one singular value, and
x_τ = x + q Aᵀ(y − A x) needs no spectrum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["CollapsedMomentum", "collapsed_momentum", "collapses", "recurrence"]


def recurrence(squares: Tensor, steps: int, step_size: float, momentum: float) -> Tensor:
    """q for each squared singular value: float64, shaped like ``squares``.

    The recurrence runs on the distinct values alone: a mask has two, a symmetric blur an eighth
    of its pixels.
    """
    distinct, where = torch.unique(squares.double(), return_inverse=True)
    one, w, u = torch.ones_like(distinct), torch.zeros_like(distinct), torch.zeros_like(distinct)
    # 2ⁱ steps at once: w ← a w + b u + e, u ← c w + d u + f.
    a, b, e = momentum * one, -distinct, one
    c, d, f = step_size * momentum * one, 1 - step_size * distinct, step_size * one
    while steps:
        if steps % 2:
            w, u = a * w + b * u + e, c * w + d * u + f
        steps //= 2
        e, f = a * e + b * f + e, c * e + d * f + f
        cross, trace = b * c, a + d
        a, b, c, d = a * a + cross, b * trace, c * trace, d * d + cross
    return u[where]


def collapses(problem: Problem) -> bool:
    """Whether the steps can be collapsed: Gaussian noise, and a spectrum or orthogonal rows."""
    operator = problem.operator
    known = isinstance(operator.gram, ScaledIdentity) or operator.has_spectrum
    return known and problem.channel.gaussian_sigma is not None


class CollapsedMomentum:
    """x ↦ the end of ``steps`` momentum steps from x; what does not depend on x is kept.

    Args:
        problem: one that `collapses`.
        y: measurements ``(B, *shape_out)``.
        steps, step_size, momentum: τ, η and β of `momentum_steps`.
    """

    def __init__(
        self, problem: Problem, y: Tensor, steps: int, step_size: float, momentum: float = 0.9
    ) -> None:
        self.operator, self.y = problem.operator, y
        self.scalar: float | None = None
        gram = problem.operator.gram
        if isinstance(gram, ScaledIdentity):
            square = torch.tensor(gram.mean, dtype=torch.float64)
            self.scalar = float(recurrence(square, steps, step_size, momentum))
            return
        spectrum = problem.operator.spectrum()
        s = spectrum.singular_values
        q = recurrence(s.square(), steps, step_size, momentum)
        self.spectrum, self.kept = spectrum, (1 - s.square() * q).to(y)
        self.pull = spectrum.filter_measurement(y, q * s)

    def __call__(self, x: Tensor) -> Tensor:
        """The end of the walk from ``x``, ``(B, *shape_in)``."""
        if self.scalar is not None:
            return x + self.scalar * self.operator.adjoint(self.y - self.operator.apply(x))
        return self.spectrum.filter(x, self.kept) + self.pull


def collapsed_momentum(
    problem: Problem, y: Tensor, x: Tensor, steps: int, step_size: float, momentum: float = 0.9
) -> Tensor:
    """What `momentum_steps` returns, to rounding; arguments as there, for one that `collapses`."""
    return CollapsedMomentum(problem, y, steps, step_size, momentum)(x)
