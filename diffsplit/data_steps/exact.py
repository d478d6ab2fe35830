"""The exact data step  argmin_x −log p(y | A x) + μ/2 ‖x − z‖².

Where A Aᵀ = c I it is elementwise in measurement space,

    x = z + Aᵀ(s* − A z)/c,   s* = prox_{ℓ, μ/c}(A z),

one A and one Aᵀ. With Gaussian noise of variance σ² and A = U diag(s) Vᵀ it is closed form,

    x = V (s² + μσ²)⁻¹ (s Uᵀy + μσ² Vᵀz).

Elsewhere it is Newton's method in measurement space: x = z + Aᵀw with w = −ℓ'(s)/μ, s = A x, has M
unknowns instead of N. With q = A z, K = A Aᵀ, s = q + K w, ρ = ℓ'(s) + μ w and D = diag ℓ''(s), a
Newton step Δ solves (D K + μ) Δ = −ρ. Substituting Δ = e + √D u makes it symmetric,

    (√D K √D + μ) u = −(ρ + μ e)/√D − √D K e,

where e = −ρ/μ for the measurements with a curvature below μ/c̄ and 0 for the others, so that no
division is by a small number. Conjugate gradients with the preconditioner c̄ D + μ then meet a
condition number of at most λmax/λmin of K whatever μ is. An image that has converged stands still,
so that it gets the same answer in every batch; the line search over halved steps costs no operator
call, since s is linear in w.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["ExactStep", "check_exact", "conjugate_gradients", "exact_step", "newton_step"]

NEWTON_ITERATIONS = 30
CG_ITERATIONS = 60
CG_TOLERANCE = 1e-4
HALVINGS = 12
WORTH_A_WARNING = 1e-2


def check_exact(problem: Problem) -> None:
    """Raise InputError where `exact_step` has no method for the problem."""
    channel = problem.channel
    direct = isinstance(problem.operator.gram, ScaledIdentity) or _is_closed_form(problem)
    if not direct and not (channel.smooth and channel.convex):
        raise InputError(
            f"the exact data step for {channel!r} needs an operator with orthogonal rows (a "
            "RandomizedTransform or a PixelMask), or a noise level above 0 and no bit flips."
        )


class ExactStep:
    """The minimiser for one y; the closed form reads the coefficients of y once for all z and μ.

    Args:
        problem: one for which `exact_step` has a method.
        y: measurements ``(B, *shape_out)``.

    Raises:
        InputError: see `check_exact`.
    """

    def __init__(self, problem: Problem, y: Tensor) -> None:
        check_exact(problem)
        self.problem, self.y = problem, y
        if _is_closed_form(problem):
            self._seen = problem.operator.spectrum().analyze_measurement(y)

    def __call__(self, z: Tensor, mu: float) -> Tensor:
        """Of the prior's estimate z ``(B, *shape_in)``, for a weight μ > 0: ``(B, *shape_in)``."""
        operator = self.problem.operator
        if _is_closed_form(self.problem):
            return self._least_squares(z, mu)
        if not isinstance(operator.gram, ScaledIdentity):
            return newton_step(self.problem, self.y, z, mu)
        c = operator.gram.mean
        s = operator.apply(z)
        return z + operator.adjoint(self.problem.channel.prox(s, self.y, mu / c) - s) / c

    def _least_squares(self, z: Tensor, mu: float) -> Tensor:
        sigma, spectrum = (
            self.problem.channel.gaussian_sigma or 0.0,
            self.problem.operator.spectrum(),
        )
        s, ridge = spectrum.singular_values.to(z), mu * sigma**2
        c = spectrum.analyze(z)
        gain = torch.where(s > 0, s / (s.square() + ridge).clamp(min=torch.finfo(z.dtype).tiny), 0)
        return z + spectrum.synthesize(gain * (self._seen - s * c))


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
    return ExactStep(problem, y)(z, mu)


def _is_closed_form(problem: Problem) -> bool:
    """Gaussian noise, noiseless included, on an operator whose spectrum is worth using."""
    operator = problem.operator
    return (
        problem.channel.gaussian_sigma is not None
        and not isinstance(operator.gram, ScaledIdentity)
        and operator.has_spectrum
    )


def newton_step(problem: Problem, y: Tensor, z: Tensor, mu: float, tol: float = 1e-5) -> Tensor:
    """The minimiser, for a convex and smooth channel.

    Args:
        y: measurements ``(B, *shape_out)``.
        z: the prior's estimate ``(B, *shape_in)``.
        mu: weight of the distance to ``z``, positive.
        tol: bound on ‖ρ‖/‖ℓ'(A z)‖ per image; an image also stops where no step lowers its
            objective.

    Returns:
        ``(B, *shape_in)``.

    Warns:
        UserWarning: the residual that is left is above 1 %.
    """
    operator, channel, mean = problem.operator, problem.channel, problem.operator.gram.mean
    shape = (-1, *operator.shape_out)
    labels = y.flatten(1)

    def gram(v: Tensor) -> Tensor:
        return operator.apply_gram(v.view(shape)).flatten(1)

    q = operator.apply(z).flatten(1)
    w, kw = torch.zeros_like(q), torch.zeros_like(q)
    rho = channel.grad(q, labels)
    target = tol * rho.norm(dim=1, keepdim=True)
    moving = torch.ones_like(target, dtype=torch.bool)
    halves = 0.5 ** torch.arange(HALVINGS, dtype=q.dtype, device=q.device).view(-1, 1, 1)
    halves[-1] = 0  # an image that no step improves stands still
    for _ in range(NEWTON_ITERATIONS):
        root = channel.curvature(q + kw, labels).clamp(min=0).sqrt()
        flat = root.square() < mu / mean
        e = torch.where(flat, -rho / mu, 0)
        ke = gram(e)
        b = torch.where(flat, 0, -rho / root) - root * ke
        u, ku = conjugate_gradients(gram, root, mu, mean, b)
        delta, k_delta = e + root * u, ke + ku
        # φ(w + αΔ) = Σ ℓ(q + K(w + αΔ)) + μ/2 (w + αΔ)ᵀ K (w + αΔ), for all α at once
        trial_w, trial_kw = w + halves * delta, kw + halves * k_delta
        values = channel.nll(q + trial_kw, labels).sum(2) + mu / 2 * (trial_w * trial_kw).sum(2)
        best = values.nan_to_num(nan=torch.inf).argmin(0)
        alpha = torch.where(moving, halves.flatten()[best].unsqueeze(1), 0)
        moving = moving & (alpha > 0)
        w, kw = w + alpha * delta, kw + alpha * k_delta
        rho = channel.grad(q + kw, labels) + mu * w
        moving = moving & (rho.norm(dim=1, keepdim=True) > target)
        if not bool(moving.any()):
            break
    left = float((rho.norm(dim=1, keepdim=True) / target).max()) * tol
    if left > WORTH_A_WARNING:
        warnings.warn(
            f"the exact data step stopped at a relative residual of {left:.1e}: the operator is "
            f"badly conditioned at μ = {mu:.1e}; use data_step='adam' or a larger lam.",
            stacklevel=2,
        )
    return z + operator.adjoint(w.view(shape))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def conjugate_gradients(
    gram: Callable[[Tensor], Tensor], root: Tensor, mu: float, mean: float, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve (√D K √D + μ) u = b for each image.

    Args:
        gram: v ↦ K v, for rows ``(B, M)``.
        root: the diagonal of √D ``(B, M)``.
        mu: μ > 0.
        mean: of the diagonal of K, for the preconditioner.
        b: ``(B, M)``.

    Returns:
        u and K √D u, each ``(B, M)``.
    """
    scale = 1 / (mean * root.square() + mu)
    u, ku, r = torch.zeros_like(b), torch.zeros_like(b), b
    p = scale * r
    energy = _dot(r, p)
    stop, tiny = CG_TOLERANCE**2 * energy, torch.finfo(b.dtype).tiny
    for _ in range(CG_ITERATIONS):
        kp = gram(root * p)
        hp = root * kp + mu * p
        alpha = torch.where(energy > stop, energy / _dot(p, hp).clamp(min=tiny), 0)
        u, ku, r = u + alpha * p, ku + alpha * kp, r - alpha * hp
        preconditioned = scale * r
        energy, previous = _dot(r, preconditioned), energy
        if bool((energy <= stop).all()):
            break
        p = preconditioned + energy / previous.clamp(min=tiny) * p
    return u, ku
