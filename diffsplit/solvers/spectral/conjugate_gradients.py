"""Renoising with A and Aᵀ alone: each step of the walk solves one linear system.

With s̃ and ν the channel's linearization at A x̂ (see `observation`), s_max = ‖A‖, and
ω = min(σ², ν/s_max²), the image that the denoiser gets is

    G = σ² Aᵀ ((σ² − ω) A Aᵀ + ν I)⁻¹
    x' = x̂ + √(σ² − κ w)₊ ξ
    r = x' + G (s̃ − A x' + η),   η = √(σ² − 2ω)₊ A ξ' + √(ν min(1, σ²/ω − 1)) ξ''

Let x' have a white error of variance σ². For ω = 0, r without η is the posterior mean, and its
error has the covariance σ² I − G A σ²; G η has the covariance that is missing to σ² I, and no
square root of a matrix is needed: perturb and solve. ω keeps the same total in the direction that
is seen best, and corrects the fixed point: there x̂ = D(r, σ) is the posterior mean for measurement
noise of variance ν + (σ² − ω) A Aᵀ, which is ν for any Gaussian prior as soon as σ < √ν/s_max. At
the end, what r did not carry is added by one more solve, with the error t = w (1 − ω/σ²):
x̂ ← x̂ + t Aᵀ (t A Aᵀ + ν I)⁻¹ (s̃ − A x̂).

The error w comes from the evidence around α σ², with α = ⟨n, Δx̂⟩/⟨n, n⟩, n the noise in r.

The systems are solved by the conjugate gradients of the exact data step, image by image, from the
factor d in (d A Aᵀ + I) u = ρ. Two systems of a level, with the data and with the noise on the
right, are solved together, so that n is known.

Sources: Papandreou and Yuille 2010 and Orieux, Féron, Giovannelli 2012 (perturbation and solving
to sample a Gaussian); Bendel et al. 2025 (DDfire) for renoising with conjugate gradients; ω is
ours.
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
from diffsplit.solvers.spectral.modules import (
    DUAL_STEP,
    LARGEST,
    RenoisingModule,
    bounded_share,
)
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
    """Whitening for any linear operator, from A and Aᵀ; the formulas are above.

    Args:
        problem, y: what was measured.
        mean_square: of the prior's images.
    """

    alike = False
    unsolved: Tensor

    def __init__(self, problem: Problem, y: Tensor, mean_square: float) -> None:
        self.operator, self.y = problem.operator, y
        self.c, self.best = self.operator.gram.mean, self.operator.norm() ** 2
        self.channel = with_noise(problem.channel, self.c)
        self.x = zeros_for(problem, y)
        self.start = self.x.new_full((len(y),), mean_square)
        self.alpha = torch.full_like(self.start, LARGEST)
        self._observe(self.x, self.start)
        self.dual = torch.zeros_like(self.residual)
        self.unsolved = torch.zeros_like(self.start)

    def _observe(self, x: Tensor, w: Tensor) -> None:
        """Linearize the channel at A x: the residual s̃ − A x, ν, and w by the evidence."""
        p = self.operator.apply(x)
        value, noise, tau = linearized(self.channel, p, self.y, self.c * w, self.c)
        self.residual, self.error = value - p, tau / self.c
        self.noise = noise.clamp(min=self.c * NOISE_FLOOR**2)

    def finest(self) -> Tensor:
        return self.noise / self.best

    def renoise(self, x: Tensor, level: Tensor, kappa: float, generator: Generators) -> Tensor:
        variance, noise, residual = level.square(), self.noise, self.residual
        omega = self.finest().minimum(variance)
        hidden = column((variance - kappa * self.error).clamp(min=0).sqrt(), x)
        first = hidden * randn_like(x, generator)
        inner = column((variance - 2 * omega).clamp(min=0).sqrt(), x) * randn_like(x, generator)
        outer = (noise * (variance / omega - 1).clamp(max=1)).sqrt()
        eta = self.operator.apply(inner - first)
        eta = eta + column(outer, eta) * randn_like(residual, generator)
        factor = ((variance - omega) / noise).repeat(2)
        moved = self.operator.adjoint(self._solved(torch.cat([residual, eta]), factor))
        step, fresh = (column(variance / noise, x) * part for part in moved.chunk(2))
        self.x, self.fresh = x, first + fresh
        return x + step + self.fresh

    def receive(self, x: Tensor, r: Tensor, level: Tensor) -> None:
        count = self.operator.size_out
        self.alpha = bounded_share(self.fresh, x - self.x, self.alpha, count, level)
        self._observe(x, level.square() * self.alpha)

    def completed(self, x: Tensor, level: Tensor, last: bool) -> Tensor:
        if not last:
            return x
        left = (1 - self.finest() / level.square()).clamp(min=0)
        return self._moved(x, self.error * left, self.residual)

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
        variance = torch.cat([DUAL_STEP * level.square(), self.error])
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
