"""DDNM and DDNM+: the null space by the diffusion model, the range space by the measurements.

With c, c̄, ℓ as in `diffsplit.solvers.spectral.coefficients`, z = Vᵀx at the noise level σ, and
n̂ = (z − c)/σ, a step to σ' is without noise in the measurements (DDNM, Eq. 13 and a DDIM step)

    ℓ = ∞     z ← c + σ' (√(1 − η²) n̂ + η ξ)
    ℓ = 0     z ← c̄ + σ' (√(1 − η²) n̂ + η ξ)

and with noise (DDNM+, Eq. 17 to 19 in the form of Appendix I) the first of these and

    σ' < ℓ    z ← c + Λ (c̄ − c) + η σ' ξ,   Λ = σ' √(1 − η²)/ℓ
    σ' ≥ ℓ    z ← c̄ + √(σ'² − ℓ²) ξ

from pure noise, x = √(1 + σ²) n. In the paper's letters ℓ is a σ_y/s and σ' is σ_t, both over a.

Source: Wang, Yu, Zhang, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model",
ICLR 2023. The public code, whose settings are the defaults, has timesteps 990, 980 … 0 and no time
travel, and for σ_y = 0 takes the first form, as here; the second would leave n̂ out where ℓ = 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, is_number
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.spectral.coefficients import MeasuredCoefficients, SpectralSolver
from diffsplit.solvers.variance_preserving import first_noise

__all__ = ["DDNMPlus"]

PRESETS: dict[str, dict[str, Any]] = {"onebit-inpainting": {"steps": 20}}
"""Chen and Liu, Table IV: 20 evaluations for all methods."""


@dataclass(frozen=True)
class DDNMPlus(SpectralSolver):
    """DDNM+, for operators with a spectrum in Gaussian noise, and DDNM where there is none.

    Its answer is one draw. Each step is one evaluation and two transforms; there is no application
    of A.

    Attributes:
        steps: noise levels, and network evaluations (paper: 100).
        eta: η in [0, 1], the share of fresh noise (paper: 0.85).
        reading: see `LinearModelSolver`.

    Raises:
        InputError: parameters out of range; when called, an operator without a spectrum.
    """

    steps: int = 100
    eta: float = 0.85

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    cost: ClassVar[str] = "100"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.eta, 0, 1):
            raise InputError(f"DDNMPlus needs eta between 0 and 1, not {self.eta!r:.40}.")
        ddpm_grid(self.steps, spacing="leading")

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        return cls(**PRESETS.get(task or "", {}) | settings)

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        data, levels = MeasuredCoefficients(problem, y), ddpm_grid(self.steps, spacing="leading")
        exact = data.noise == 0
        plain, kept = data.noise.isinf() | exact, math.sqrt(1 - self.eta**2)
        z = first_noise(data.values, levels[0], generator)
        for sigma, after in itertools.pairwise(levels):
            clean = prior.denoise(data.synthesize(z), sigma)
            yield State(sigma, prior.clip(clean))
            c = data.analyze(clean)
            known = data.known_at(after)
            n = torch.where(plain, kept * after / sigma * (z - c), 0)
            width = torch.where(known & ~exact, data.missing_noise(after), self.eta * after)
            mean = torch.where(known, data.values, c + data.pull(c, after, self.eta))
            z = mean + n + width * randn_like(c, generator)
        return Answer(data.synthesize(z))
