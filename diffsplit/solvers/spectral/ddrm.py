"""DDRM: denoising diffusion restoration in the singular directions of A.

Source: Kawar, Elad, Ermon, Song, "Denoising Diffusion Restoration Models", NeurIPS 2022, Eq. 7 and
8; η = 0.85, η_B = 1 and 20 steps as in its Section 5. The step is in
`diffsplit.solvers.spectral.restoration`. It starts from the measurements in noise, at timestep 950,
and its answers are not clipped on the way, as in the public code.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, are_counts, is_number
from diffsplit.solvers.recovery import Answer
from diffsplit.solvers.spectral.restoration import MeasuredCoefficients, SpectralSolver

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(SpectralSolver):
    """DDRM, denoising diffusion restoration, for operators with a spectrum in Gaussian noise.

    Attributes:
        steps: noise levels and network evaluations (paper: 20).
        eta: η, the share of fresh noise in directions that are not measured, or in more noise than
            the level (paper: 0.85).
        eta_b: η_B, how far a measured direction is moved to its measurement (paper: 1).
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    cost: ClassVar[str] = "20"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            are_counts(self.steps) and is_number(self.eta, 0, 1) and is_number(self.eta_b, 0, 1)
        ):
            raise InputError(f"DDRM needs whole steps ≥ 1 and eta, eta_b in [0, 1], not {self}.")
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
        x = measured.start(levels[0], generator)
        pairs = list(itertools.pairwise(levels))
        x = yield from measured.walk(prior.denoise, x, pairs, generator, self.eta, self.eta_b)
        return Answer(x)
