"""ΠGDM: pseudoinverse guidance, the exact gradient where the clean image given x is Gaussian.

Source: Song, Vahdat, Mardani and Kautz 2023, "Pseudoinverse-Guided Diffusion Models for Inverse
Problems", Algorithm 1. With x0 | x ~ N(D(x, σ), r² I), r² = v σ²/(v + σ²) for images of variance v,

    ∇_x log p(y | x) = Jᵀ u/r²,   J = ∂D/∂x,   u = Aᵀ (A Aᵀ + σ_y²/r² I)⁻¹ (y − A D)

so that u leads from D to the minimiser of ‖A z − y‖²/2σ_y² + ‖z − D‖²/2r², which is the exact data
step. Without noise it is A⁺(y − A D). In σ-space, with α' = 1/√(1 + σ'²), there are three weights:

    "adaptive"   x ← DDIM step from σ to σ' with D,  + Jᵀ u/α'
    "code"       x ← DDIM step from σ to σ' with D,  + Jᵀ u
    "exact"      x ← DDIM step from σ to σ' with E[x0 | x, y] = D + σ²/r² Jᵀ u

The first is the paper's, where the guidance of a step does not depend on how long it is. The second
is that of the only public code of its authors (that of RED-diff), which has α α' for the paper's α.
The third is Bayes' rule, and exact for x0 ~ N(m, v I).

The mean of a large image is known from its noisy version even at σ = 150, so that J is near 1 there
where 1/α' is 150: with a network that knows this the first diverges at 256×256.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from diffsplit.data_steps.exact import ExactStep
from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.any_channel import with_noise_floor
from diffsplit.solvers.base import TINY, Algorithm, is_number, zeros_for
from diffsplit.solvers.linear_model import LinearModelSolver
from diffsplit.solvers.problem_facts import NOISE_FLOOR
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped
from diffsplit.solvers.variance_preserving import alpha, first_noise

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(LinearModelSolver):
    """ΠGDM, for linear operators in Gaussian noise; its answer is one posterior sample.

    Each step is a forward and a backward pass of the network, and one exact data step: an A and an
    Aᵀ with orthogonal rows, transforms with a spectrum, conjugate gradients elsewhere. Measurements
    without noise are taken to have 0.001 of it.

    Attributes:
        steps: of the DDPM grid, evenly spaced (paper: 100).
        eta: share of fresh noise, 1 for ancestral steps (paper) and 0 for deterministic ones.
        variance: v > 0, of the entries of clean images (paper: 1).
        weight: "code", "adaptive", the paper's, or "exact". On ten cats of 64×64 "code" is 0.3 to
            0.9 dB ahead of "adaptive" on reductions, a box, blurs with noise and 1-bit inpainting,
            0.3 dB behind it with bits of random sums, and level elsewhere.
        reading: see `LinearModelSolver`.
    """

    steps: int = 100
    eta: float = 1.0
    variance: float = 1.0
    weight: Literal["code", "adaptive", "exact"] = "code"

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, other channels read as linear"
    cost: ClassVar[str] = "100, with backpropagation"

    def __post_init__(self) -> None:
        super().__post_init__()
        ddpm_grid(self.steps)
        if not (is_number(self.eta, 0, 1) and is_number(self.variance, TINY)):
            raise InputError(f"PiGDM needs 0 ≤ eta ≤ 1 and a variance above 0, not {self}.")
        if self.weight not in ("adaptive", "exact", "code"):
            raise InputError(f"weight is 'code', 'adaptive' or 'exact', not {self.weight!r:.40}.")

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        data_step = ExactStep(with_noise_floor(problem, NOISE_FLOOR), y)
        sigmas, v = ddpm_grid(self.steps), self.variance
        x = first_noise(zeros_for(problem, y), sigmas[0], generator)
        for sigma, after in itertools.pairwise(sigmas):
            clean, pullback = prior.vjp(x, sigma)
            r2 = v * sigma**2 / (v + sigma**2)
            guidance = pullback(data_step(clean, 1 / r2) - clean)
            if self.weight == "exact":
                clean = clean + sigma**2 / r2 * guidance
            x = stepped(x, clean, sigma, after, generator, self.eta)
            if self.weight != "exact":
                x = x + guidance / (alpha(after) if self.weight == "adaptive" else 1.0)
            yield State(sigma, prior.clip(clean))
        return Answer(x)
