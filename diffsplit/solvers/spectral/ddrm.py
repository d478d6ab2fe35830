"""DDRM: denoising diffusion restoration, direction by direction of the measured ones.

Source: Kawar, Elad, Ermon, Song, "Denoising Diffusion Restoration Models", NeurIPS 2022, Eq. 7 and
8. With c, c̄, ℓ as in `diffsplit.solvers.spectral.coefficients`, z = Vᵀx at the noise level σ, and
n̂ = (z − c)/σ, a step to σ' is

    ℓ = ∞     z ← c + σ' (√(1 − η²) n̂ + η ξ)
    σ' < ℓ    z ← c + σ' (√(1 − η²) (c̄ − c)/ℓ + η ξ)
    σ' ≥ ℓ    z ← c + η_B (c̄ − c) + √(σ'² − η_B² ℓ²) ξ

from z = c̄ + √(σ² − ℓ²) ξ, or σ ξ where ℓ > σ. The answers of the network are not clipped.

The public code, whose settings are the defaults, has timesteps 950, 900 … 0. Without noise its last
step, to σ' = 0, ends with c, where Eq. 8 says c̄: so does this one. The code also drops singular
values of blurs below 0.03, which here count as far as rounding lets them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, is_number
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.spectral.coefficients import MeasuredCoefficients, SpectralSolver

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(SpectralSolver):
    """DDRM, for operators with a spectrum in Gaussian noise; its answer is one draw.

    Each step is one evaluation and two transforms; there is no application of A.

    Attributes:
        steps: noise levels, and network evaluations (paper: 20).
        eta: η in [0, 1], the share of fresh noise where c̄ is noisier than the level, or missing
            (paper: 0.85).
        eta_b: η_B in [0, 1], how far a coefficient moves to a better c̄ (paper: 1).
        reading: see `LinearModelSolver`.

    Raises:
        InputError: parameters out of range; when called, an operator without a spectrum.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    cost: ClassVar[str] = "20"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.eta, 0, 1) and is_number(self.eta_b, 0, 1)):
            raise InputError(f"DDRM needs eta and eta_b between 0 and 1, not {self}.")
        ddpm_grid(self.steps, spacing="leading")

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        data, levels = MeasuredCoefficients(problem, y), ddpm_grid(self.steps, spacing="leading")
        hidden, kept = data.noise.isinf(), math.sqrt(1 - self.eta**2)
        top = levels[0]
        width = torch.where(data.known_at(top), data.missing_noise(top), top)
        z = torch.where(data.known_at(top), data.values, 0)
        z = z + width * randn_like(data.values, generator)
        for sigma, after in itertools.pairwise(levels):
            clean = prior.denoise(data.synthesize(z), sigma)
            yield State(sigma, prior.clip(clean))
            c = data.analyze(clean)
            known = data.known_at(after) & (after > 0)
            direct = self.eta_b * (data.values - c)
            pulled = torch.where(
                hidden, kept * after / sigma * (z - c), data.pull(c, after, self.eta)
            )
            width = torch.where(known, data.missing_noise(after, self.eta_b), self.eta * after)
            z = c + torch.where(known, direct, pulled) + width * randn_like(c, generator)
        return Answer(data.synthesize(z))
