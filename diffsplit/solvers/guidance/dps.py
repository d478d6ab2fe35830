"""DPS: diffusion posterior sampling, a gradient of the misfit after each step of DDPM.

Source: Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems",
Algorithm 1, and the authors' code. Over the DDPM grid σ_1000 > … > σ_1 > 0, from √(1 + σ²) n:

    x̂0 = clip(D(x, σ))
    x' = ancestral step from σ to σ', with x̂0
    x  ← x' − ζ/(α' α) ∇_x ‖y − A x̂0(x)‖₂,   α = 1/√(1 + σ²)

The norm is that of each image, and not squared, as in the code. The paper writes a step of
ζ'/‖y − A x̂0‖ on the squared norm, which is ζ = 2ζ' here; the settings are the code's. The code's
network also learned the variance of its steps; here it is that of the posterior given x̂0. ζ is that
of 1000 steps. K steps take 1000 ζ/K, which is ours: with the same ζ, 50 of them hardly move x
(×4 on a cat: 12 dB).

A channel with finitely many outcomes has √(−2 log p(y | A x̂0)) in place of the norm, which is what
the norm is for Gaussian noise of level 1. That is ours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.momentum import check_gradient
from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.any_channel import AnyChannelSolver, family_of
from diffsplit.solvers.base import Algorithm, is_number, zeros_for
from diffsplit.solvers.guidance.gradient import clipped_vjp, root_misfit_grad
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped
from diffsplit.solvers.variance_preserving import first_noise, vp_step

__all__ = ["DPS"]

STEPS = 1000


@dataclass(frozen=True)
class DPS(AnyChannelSolver):
    """DPS, for any channel with a gradient; its answer is one posterior sample.

    Each step is a forward and a backward pass of the network, one A and one Aᵀ.

    Attributes:
        steps: of the DDPM grid, evenly spaced (paper: 1000).
        zeta: ζ ≥ 0, of 1000 steps (paper: 0.3 for blurs and super-resolution, 0.5 for inpainting;
            Chen and Liu: 0.1 for bits that are read as linear). `for_problem` chooses among these.
        reading: see `AnyChannelSolver`.
    """

    steps: int = STEPS
    zeta: float = 0.3

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "1000, with backpropagation"

    def __post_init__(self) -> None:
        super().__post_init__()
        ddpm_grid(self.steps)
        if not is_number(self.zeta, 0):
            raise InputError(f"zeta is a number from 0 up, not {self.zeta!r:.40}.")

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """With the ζ that the papers chose for such a problem."""
        family, gaussian = family_of(problem), problem.channel.gaussian_sigma is not None
        zeta = 0.5 if family == "inpainting" else 0.3
        if settings.get("reading") is not None and not gaussian:
            zeta = 0.1
        return cls(**{"zeta": zeta, **settings})

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        check_gradient(problem.channel)

    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        sigmas, whole = ddpm_grid(self.steps), self.zeta * STEPS / self.steps
        x = first_noise(zeros_for(problem, y), sigmas[0], generator)
        for sigma, after in itertools.pairwise(sigmas):
            clean, pullback = clipped_vjp(prior, x, sigma)
            gradient = pullback(root_misfit_grad(problem, clean, y))
            step = whole * vp_step(sigma, after)
            x = stepped(x, clean, sigma, after, generator) - step * gradient
            yield State(sigma, clean)
        return Answer(x)
