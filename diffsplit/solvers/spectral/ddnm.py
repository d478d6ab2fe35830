"""DDNM+: the denoising diffusion null-space model, for noisy measurements.

Source: Wang, Yu, Zhang, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model",
ICLR 2023, Eq. 17 to 19 in the spectral form of its Appendix I; 100 steps and η = 0.85 as in the
public code, without time travel. In σ-space, with the notation of
`diffsplit.solvers.spectral.restoration`, its range-space correction and noise are

    ĉ + Λ (c̄ − ĉ) + ε,   σ' ≥ ℓ: Λ = 1, ε = √(σ'² − ℓ²) ξ;   σ' < ℓ: Λ = σ' √(1 − η²)/ℓ, ε = η σ' ξ

which is the step of DDRM with η_B = 1. It starts from pure noise, √(1 + σ²) n.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.recovery import Answer
from diffsplit.solvers.spectral.restoration import MeasuredCoefficients, SpectralSolver

__all__ = ["DDNMPlus"]


@dataclass(frozen=True)
class DDNMPlus(SpectralSolver):
    """DDNM+, the null-space model, for operators with a spectrum in Gaussian noise.

    Attributes:
        steps: noise levels and network evaluations (paper: 100).
        eta: η, the share of fresh noise (paper: 0.85).
    """

    steps: int = 100
    eta: float = 0.85

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    cost: ClassVar[str] = "100"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (are_counts(self.steps) and is_number(self.eta, 0, 1)):
            raise InputError(f"DDNMPlus needs whole steps ≥ 1 and eta in [0, 1], not {self}.")
        ddpm_grid(self.steps, spacing="leading")

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        measured, levels = (
            MeasuredCoefficients(problem, y),
            ddpm_grid(self.steps, spacing="leading"),
        )
        x = math.sqrt(1 + levels[0] ** 2) * randn_like(zeros_for(problem, y), generator)
        pairs = list(itertools.pairwise(levels))
        x = yield from measured.walk(prior.denoise, x, pairs, generator, self.eta)
        return Answer(x)
