"""Renoising with A and Aᵀ alone: each step of the walk solves two linear systems.

With s̃ and ν the channel's linearization at A x̂ (see `observation`), w the error of x̂ by the
evidence, λ the pull of the measurements in their own units and e = s̃ − A x̂ − ν λ,

    λ ← λ + (β σ² A Aᵀ + ν I)⁻¹ e,   x̂ ← x̂ + w Aᵀ (w A Aᵀ + ν I)⁻¹ e

D sees Aᵀ λ, and β is 0.55, or 1.2 for bits, see `conditioned`. A walk to a sample starts from a
draw of the posterior of white images: x' = w^½ ξ, and
x' + w Aᵀ (w A Aᵀ + ν I)⁻¹ (s̃ − A x' + ν^½ ξ'). No square root of a matrix is needed: perturb and
solve.

The systems are solved by the conjugate gradients of the exact data step, image by image, from the
factor d in (d A Aᵀ + I) u = ρ. The two systems of a level are solved together.

Sources: Papandreou and Yuille 2010 and Orieux, Féron, Giovannelli 2012 (perturbation and solving
to sample a Gaussian); Bendel et al. 2025 (DDfire) for renoising with conjugate gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.data_steps.exact import conjugate_gradients
from diffsplit.noise import Generators, randn_like
from diffsplit.operators.base import LinearOperator
from diffsplit.problem import Problem
from diffsplit.solvers.base import zeros_for
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.problem_facts import NOISE_FLOOR
from diffsplit.solvers.spectral.modules import RenoisingModule, dual_step
from diffsplit.solvers.spectral.observation import linearized, with_noise

__all__ = ["ConjugateGradientModule", "filtered"]


def filtered(operator: LinearOperator, rho: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """u = (d A Aᵀ + I)⁻¹ ρ ``(B, *shape_out)``, by conjugate gradients, and what is left.

    Args:
        rho: ρ ``(B, *shape_out)``.
        factor: d ≥ 0 of each ``(B,)``.

    Returns:
        u, and ‖ρ − (d A Aᵀ + I) u‖/‖ρ‖ ``(B,)``.
    """
    shape = (-1, *operator.shape_out)

    def gram(v: Tensor) -> Tensor:
        return operator.apply_gram(v.view(shape)).flatten(1)

    flat = rho.flatten(1)
    root = factor.sqrt().unsqueeze(1).expand_as(flat)
    u, ku = conjugate_gradients(gram, root, 1.0, operator.gram.mean, flat)
    tiny = torch.finfo(flat.dtype).tiny
    left = (flat - root * ku - u).norm(dim=1) / flat.norm(dim=1).clamp(min=tiny)
    return u.view(shape), left


class ConjugateGradientModule(RenoisingModule):
    """The pull of the measurements for any linear operator, from A and Aᵀ; formulas above.

    Args:
        problem, y: what was measured.
        mean_square: of the prior's images.
    """

    unsolved: Tensor

    def __init__(self, problem: Problem, y: Tensor, mean_square: float) -> None:
        self.operator, self.y, self.step = problem.operator, y, dual_step(problem)
        self.c, self.best = self.operator.gram.mean, self.operator.norm() ** 2
        self.channel = with_noise(problem.channel, self.c)
        self.x = zeros_for(problem, y)
        self.start = self.x.new_full((len(y),), mean_square)
        self.dual = torch.zeros((len(y), *self.operator.shape_out)).to(self.x)
        self._observe(self.x, self.start)
        self.unsolved = torch.zeros_like(self.start)

    def _observe(self, x: Tensor, w: Tensor) -> None:
        """Linearize the channel at A x: the residual s̃ − A x, ν, and w by the evidence."""
        p = self.operator.apply(x)
        at = p
        if self.channel.gaussian_sigma is None:
            at = p - column(self.c * w, p) * self.dual
        value, noise, tau = linearized(self.channel, at, self.y, self.c * w, self.c)
        self.residual, self.error = value - p, tau / self.c
        self.noise = noise.clamp(min=self.c * NOISE_FLOOR**2)

    def finest(self) -> Tensor:
        return self.noise / self.best

    def first(self) -> Tensor:
        return self._moved(self.x, self.start, self.residual)

    def posterior_start(self, level: float, generator: Generators) -> Tensor:
        x, w = self.x, self.start
        error = column(w.sqrt(), x) * randn_like(x, generator)
        noise = column(self.noise.sqrt(), self.residual) * randn_like(self.residual, generator)
        drawn = self._moved(x + error, w, self.residual - self.operator.apply(error) + noise)
        return drawn + level * randn_like(x, generator)

    def pull(self) -> Tensor:
        return self.operator.adjoint(self.dual)

    def conditioned(self, x: Tensor, w: Tensor, level: Tensor) -> Tensor:
        self._observe(x, w)
        noise = column(self.noise, self.residual)
        rest = self.residual - noise * self.dual
        variance = torch.cat([self.step * level.square(), self.error])
        both = rest.repeat(2, *(1,) * (rest.ndim - 1))
        change, moved = self._solved(both, variance / self.noise.repeat(2)).chunk(2)
        self.dual = self.dual + change / noise
        return x + column(self.error / self.noise, x) * self.operator.adjoint(moved)

    def _moved(self, x: Tensor, w: Tensor, residual: Tensor) -> Tensor:
        """x + w Aᵀ (w A Aᵀ + ν I)⁻¹ residual."""
        share = w / self.noise
        return x + column(share, x) * self.operator.adjoint(self._solved(residual, share))

    def _solved(self, rho: Tensor, factor: Tensor) -> Tensor:
        """`filtered` for one or more systems of each image, with a note of what they left."""
        u, left = filtered(self.operator, rho, factor)
        self.unsolved = left.view(-1, len(self.start)).amax(0).maximum(self.unsolved)
        return u
