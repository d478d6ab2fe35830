"""SIM-DMIS: single-index models, by partial inversion of a diffusion model.

The link between A x and y is not used. x̄ = Aᵀy, scaled to the energy of images, is close to the
image but for an error that looks like white noise; its level is taken to be C_s/√M. From there

    up      x̄ follows the deterministic trajectory from that level to the largest one
    down    and a deterministic walk from the largest level to 0 leads to an image.

Where the trajectory up is followed exactly, the way down is its reverse; in a few steps it is not,
and the walk forgets what does not look like an image.

Source: after "Learning single-index models via diffusion models" (SIM-DMIS), as described by Chen
and Liu, Section V, with C_s = 135 for 3×256×256 pixels and 150 evaluations in all; reconstructed
from the description, since no public code of it is known to us. For other sizes C_s grows with √N,
so that the level depends on M/N alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid, ddpm_sigmas
from diffsplit.solvers.base import TINY, Algorithm, Solver, are_counts, is_number
from diffsplit.solvers.linear.simple import BackProjection
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped

__all__ = ["SIMDMIS"]

CONSTANT, ENTRIES = 135.0, 3 * 256 * 256
"""C_s of the paper, and the size of its images."""


@dataclass(frozen=True)
class SIMDMIS(Solver):
    """SIM-DMIS, partial inversion of a diffusion model, for any channel, none of which it knows.

    Attributes:
        steps: noise levels on the way down (with ``inversion_steps`` 150 in the paper).
        inversion_steps: noise levels on the way up.
        constant: C_s; the level of x̄ is C_s/√M. None takes 135 √(N/196608).
    """

    steps: int = 100
    inversion_steps: int = 50
    constant: float | None = None

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "random sums of any channel"
    cost: ClassVar[str] = "150"

    def __post_init__(self) -> None:
        known = self.constant is None or is_number(self.constant, TINY)
        if not (are_counts(self.steps, self.inversion_steps) and known):
            raise InputError(
                "SIMDMIS needs whole steps and inversion_steps ≥ 1 and a constant above 0 (or "
                f"None), not {self}."
            )
        ddpm_grid(self.steps)

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps + self.inversion_steps

    def start(self, problem: Problem) -> int:
        """The timestep of the DDPM grid whose level is nearest to C_s/√M."""
        operator = problem.operator
        constant = self.constant
        if constant is None:
            constant = CONSTANT * math.sqrt(operator.size_in / ENTRIES)
        level = constant / math.sqrt(operator.size_out)
        return min(range(1000), key=lambda t: abs(ddpm_sigmas()[t] - level))

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        first, sigmas = self.start(problem), ddpm_sigmas()
        way, count = 999 - first, self.inversion_steps
        up = [sigmas[first + round(way * k / count)] for k in range(count + 1)]
        x = BackProjection()._estimate(problem, y)
        for now, after in itertools.pairwise([*up, *ddpm_grid(self.steps)[1:]]):
            clean = prior.denoise(x, now)
            x = stepped(x, clean, now, after, generator, eta=0.0)
            yield State(now, clean)
        return Answer(x)
