"""SIM-DMIS: single-index models, by partial inversion of a diffusion model and one sampling.

The link f of y = f(A x) is not used. For rows of standard normal entries Aᵀy/M is μ x/‖x‖ in noise
of about 1/√M an entry, so that

    x̄ = C_s' Aᵀy/M   at the noise level   σ = C_s/√M,   C_s' = C_s

is taken for a noisy image. The probability-flow ODE leads it up from there to the largest level
(partial inversion), in second-order steps (DPM-Solver++ 2M), and from there down to a clean image
in first-order ones (DDIM). What the way up misses is what makes x̄ an image.

Source: Tang, Chen, Xue, Liu, "Learning Single Index Models with Diffusion Priors", ICML 2025,
Algorithm 1, reconstructed from descriptions: no code of it is public. 150 evaluations in all; that
50 of them lead up is our reading. C_s = 55 there, and 135 for 3×256×256 with Chen and Liu.

Ours is what other sizes and channels need: C_s grows with √N, as the norm of an image does; y is
brought to mean square 1, which bits have already, and rows to ‖a_i‖² = N.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.operators.gram import IIDRows, RandomRows
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid, ddpm_sigmas
from diffsplit.solvers.base import TINY, Algorithm, Solver, are_counts, is_number
from diffsplit.solvers.linear.base import as_numbers
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import walk

__all__ = ["SIMDMIS"]

CONSTANT, ENTRIES = 135.0, 3 * 256 * 256
"""C_s of Chen and Liu, and the size of their images. By the formula above the best for single bits
is twice as much: at 64×64, where this stands for 33.75, 71 gives cats 16.6 dB instead of 14.2."""


@dataclass(frozen=True)
class SIMDMIS(Solver):
    """SIM-DMIS, for random rows and any channel, of which it knows nothing.

    One Aᵀ, and an evaluation a step. Nothing but ``y`` is random.

    Attributes:
        steps: on the way down (with ``inversion_steps`` 150 in the paper).
        inversion_steps: on the way up.
        constant: C_s = C_s'. None takes 135 √(N/196608).

    Raises:
        InputError: parameters out of range; when called, an operator whose rows are not random.
    """

    steps: int = 100
    inversion_steps: int = 50
    constant: float | None = None

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "random matrices and transforms, any channel"
    cost: ClassVar[str] = "150"

    def __post_init__(self) -> None:
        known = self.constant is None or is_number(self.constant, TINY)
        if not (are_counts(self.inversion_steps) and known):
            raise InputError(
                "SIMDMIS needs whole inversion_steps ≥ 1 and a constant above 0 or None, "
                f"not {self}."
            )
        ddpm_grid(self.steps)

    def steps_at_most(self, problem: Problem) -> int:
        return self.inversion_steps + self.steps

    def check(self, problem: Problem, prior: Denoiser) -> None:
        if not isinstance(problem.operator.gram, IIDRows | RandomRows):
            raise InputError(
                f"SIMDMIS needs random rows, behind which Aᵀy is an image in white noise, and "
                f"{problem.operator} has none; use a GaussianMatrix or a RandomizedTransform in "
                "its place, or the solver DiffEP, which takes any operator."
            )

    def noisy_image(self, problem: Problem, y: Tensor) -> tuple[Tensor, float]:
        """x̄ ``(B, *shape_in)`` and the noise level that it is taken to have, C_s/√M."""
        operator, numbers = problem.operator, as_numbers(problem, y)
        constant = self.constant
        if constant is None:
            constant = CONSTANT * math.sqrt(operator.size_in / ENTRIES)
        size = numbers.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        unit = numbers / size.view(-1, *(1,) * (numbers.ndim - 1))
        row = math.sqrt(operator.gram.mean / operator.size_in)  # standard deviation of an entry
        image = constant / (operator.size_out * row) * operator.adjoint(unit)
        return image, constant / math.sqrt(operator.size_out)

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        x, level = self.noisy_image(problem, y)
        sigmas, count = ddpm_sigmas(), self.inversion_steps
        start = min(bisect.bisect_left(sigmas, level), len(sigmas) - 1)
        times = torch.linspace(start, len(sigmas) - 1, count + 1).round().int().tolist()
        for step in walk(prior.denoise, x, [sigmas[t] for t in times], generator, 0.0, order=2):
            x = step.x
            yield State(step.sigma, prior.clip(step.clean))
        for step in walk(prior.denoise, x, ddpm_grid(self.steps), generator, 0.0):
            x = step.x
            yield State(step.sigma, prior.clip(step.clean))
        return Answer(x)
