"""Zero-shot editing with a consistency model, for any operator with a spectrum.

With c = Vᵀx, c̄ and ℓ as in `diffsplit.solvers.spectral.coefficients`, for falling levels σ_1 > … >
σ_K of Karras' grid (ρ = 7), from x = known coefficients + σ_1 n:

    x̂ = f(x, σ_k), clipped to the range of images
    where ℓ ≤ σ_{k+1}   c ← c̄,          in noise √(σ_{k+1}² − max(ℓ, σ_K)²)
    elsewhere           c ← that of x̂,  in noise √(σ_{k+1}² − σ_K²)

Source: Song, Dhariwal, Chen, Sutskever, "Consistency Models", ICML 2023, Algorithm 4. Its
orthogonal transforms are pixels, luma, and the means of 8×8 blocks; the singular directions of A
have these for special cases. It knows no noise. Ours is the rule for ℓ > 0: a noisy coefficient is
replaced as long as the level hides its noise, and then goes with the model, as in denoising by
f(y, σ_y).

There are 40 levels in [0.002, 80], as in the public code, which evaluates 39 of them: the last one,
of Algorithm 4 alone, would change nothing, since f(x, σ_K) = x.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import ConsistencyModel
from diffsplit.problem import Problem
from diffsplit.schedules import karras_grid
from diffsplit.solvers.base import Algorithm, are_counts
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.spectral.coefficients import MeasuredCoefficients, SpectralSolver

__all__ = ["ConsistencyEditing"]

LARGEST, SMALLEST = 80.0, 0.002


@dataclass(frozen=True)
class ConsistencyEditing(SpectralSolver):
    """Zero-shot editing with a consistency model; its answer is one draw.

    Operators with a spectrum, Gaussian noise. Each level is one evaluation and two transforms;
    there is no application of A.

    Attributes:
        levels: K ≥ 2 (paper: 40), one more than network evaluations.
        reading: see `LinearModelSolver`.

    Raises:
        InputError: parameters out of range; when called, an operator without a spectrum.
    """

    levels: int = 40

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)
    cost: ClassVar[str] = "39"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not are_counts(self.levels) or self.levels < 2:
            raise InputError(f"ConsistencyEditing needs 2 levels or more, not {self.levels!r:.40}.")

    @property
    def requires(self) -> type[ConsistencyModel]:
        return ConsistencyModel

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels - 1

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: ConsistencyModel, generator: Generators
    ) -> Algorithm:
        data = MeasuredCoefficients(problem, y)
        least = max(SMALLEST, prior.sigma_min)
        grid = karras_grid(self.levels, min(LARGEST, prior.sigma_max), least)[:-1]
        z = torch.where(data.known_at(grid[0]), data.values, 0)
        z = z + grid[0] * randn_like(z, generator)
        for sigma, after in itertools.pairwise(grid):
            clean = prior.clip(prior.consistency(data.synthesize(z), sigma))
            known = data.known_at(after)
            c = torch.where(known, data.values, data.analyze(clean))
            covered = torch.where(known, data.noise.clamp(min=least), least)
            width = (after**2 - covered.square()).clamp(min=0).sqrt()
            z = c + width * randn_like(c, generator)
            yield State(sigma, clean)
        return Answer(data.synthesize(z))
