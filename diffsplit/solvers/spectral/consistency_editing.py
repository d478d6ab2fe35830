"""Zero-shot editing with a consistency model, for any operator with a spectrum.

For falling levels σ_1 > … > σ_K of Karras' grid (ρ = 7), from x = σ_1 n:

    x̂ = f(x, σ_k), clipped;   known coefficients ← measurements;   x ← x̂ + √(σ_{k+1}² − σ_K²) ξ

Source: Song, Dhariwal, Chen, Sutskever, "Consistency Models", ICML 2023, Algorithm 4; 40 levels of
[0.002, 80], 39 evaluations, as in the public code. There the known coefficients are pixels, the
luma, or means of blocks; here those in the singular directions of A. Noisy ones replace those of x̂
while the level is above their own, as in `diffsplit.solvers.spectral.restoration` with η = 1; the
paper has noiseless ones alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import ConsistencyModel
from diffsplit.problem import Problem
from diffsplit.schedules import karras_grid
from diffsplit.solvers.base import Algorithm, are_counts, zeros_for
from diffsplit.solvers.recovery import Answer
from diffsplit.solvers.spectral.restoration import MeasuredCoefficients, SpectralSolver

__all__ = ["ConsistencyEditing"]

LARGEST, SMALLEST = 80.0, 0.002
"""The levels of the public code."""


@dataclass(frozen=True)
class ConsistencyEditing(SpectralSolver):
    """Zero-shot editing with a consistency model, for operators with a spectrum.

    Attributes:
        levels: noise levels (paper: 40); one more than network evaluations.
    """

    levels: int = 40

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)
    cost: ClassVar[str] = "39"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not are_counts(self.levels) or self.levels < 2:
            raise InputError(f"ConsistencyEditing needs whole levels ≥ 2, not {self.levels!r}.")

    @property
    def requires(self) -> type[ConsistencyModel]:
        return ConsistencyModel

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels - 1

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: ConsistencyModel, generator: Generators
    ) -> Algorithm:
        least = max(SMALLEST, prior.sigma_min)
        grid = karras_grid(self.levels, min(LARGEST, prior.sigma_max), least)[:-1]
        pairs = [
            (now, math.sqrt(max(after**2 - least**2, 0.0)))
            for now, after in itertools.pairwise(grid)
        ]

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return prior.clip(prior.consistency(x, sigma))

        x = grid[0] * randn_like(zeros_for(problem, y), generator)
        x = yield from MeasuredCoefficients(problem, y).walk(denoise, x, pairs, generator, eta=1.0)
        return Answer(x)
