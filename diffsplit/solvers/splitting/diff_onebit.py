"""Diff-OneBit: half-quadratic splitting along the reverse diffusion.

Source: Chen and Liu, "Diffusion Model Based Signal Recovery Under 1-Bit Quantization",
Algorithm 1 (ζ = 0) and Algorithm 2 (ζ > 0). In σ-space, over K levels of the DDPM grid and from
x = √(1 + σ_K²) n, for k = K … 1:

    z  = D(x, σ_k)                                             line 3
    x̂  = argmin_x −log p(y | A x) + μ_k/2 ‖x − z‖²,  μ_k = λ/σ_k²     line 4, Eq. (26)
    n̂  = (x − x̂)/σ_k                                           line 5
    x  ← x̂ + σ_{k−1} (√(1 − ζ) n̂ + √ζ ξ)                       line 6

The paper does not say how its K levels are spaced, nor whether z is clipped to the range of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from diffsplit.data_steps.adam import adam_step
from diffsplit.data_steps.exact import ExactStep, check_exact
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import Spacing, ddpm_grid
from diffsplit.solvers.base import TINY, Algorithm, Solver, are_counts, is_number, zeros_for
from diffsplit.solvers.splitting.half_quadratic import half_quadratic

__all__ = ["DiffOneBit"]


@dataclass(frozen=True)
class DiffOneBit(Solver):
    """Diff-OneBit, for any channel with a gradient.

    Attributes:
        steps: K, the number of noise levels and network evaluations (paper: 20, 50, 100).
        lam: λ, the weight of the prior. None takes the paper's choice for the problem: 1 where
            pixels are measured (1-bit inpainting), 0.02 for other bits; and 1 for Gaussian noise,
            which is not in the paper (for a blur try 1 to 5).
        zeta: ζ in [0, 1], the share of fresh noise (paper: 0).
        data_step: ``"adam"``, the paper's inexact step that made its tables, or ``"exact"``.
        adam_steps, adam_lr: of the inexact step (paper: 100 and 0.25).
        spacing: of the levels, ``"quadratic"``, ``"even"`` or ``"late"``, which is what
            DiffPIR has, on which the method builds; see `diffsplit.schedules.ddpm_grid`. On
            held-out cats quadratic is 0.7 dB better than even for compressed sensing; for 1-bit
            inpainting it is better with a larger λ alone.
        clip: whether z is clipped to the range of images, which is worth 0.1 to 0.3 dB.
    """

    steps: int = 20
    lam: float | None = None
    zeta: float = 0.0
    data_step: Literal["adam", "exact"] = "adam"
    adam_steps: int = 100
    adam_lr: float = 0.25
    spacing: Spacing = "quadratic"
    clip: bool = True

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; channels with a gradient, or orthogonal rows"
    cost: ClassVar[str] = "20, and 100 gradient steps of the data for each"

    def __post_init__(self) -> None:
        counts = are_counts(self.steps, self.adam_steps)
        numbers = (self.lam is None or is_number(self.lam, TINY)) and is_number(self.adam_lr, TINY)
        if not (counts and numbers and is_number(self.zeta, 0, 1) and type(self.clip) is bool):
            raise InputError(
                "DiffOneBit needs whole steps and adam_steps ≥ 1, finite lam (or None) and adam_lr "
                f"> 0, 0 ≤ zeta ≤ 1, and a true or false clip, not {self}."
            )
        if self.data_step not in ("adam", "exact"):
            raise InputError(f"data_step is 'adam' or 'exact', not {self.data_step!r}.")
        ddpm_grid(self.steps, spacing=self.spacing)

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def check(self, problem: Problem, prior: Denoiser) -> None:
        if self.data_step == "exact":
            check_exact(problem)
        elif not problem.channel.smooth:
            raise InputError(
                f"the Adam data step needs the gradient of the likelihood, which {problem.channel} "
                "lacks; give it a noise level sigma > 0, or use data_step='exact'."
            )

    def weight(self, problem: Problem) -> float:
        """λ for a problem: `lam`, or the paper's choice."""
        if self.lam is not None:
            return self.lam
        pixels = problem.operator.pixels is not None
        return 1.0 if pixels or problem.channel.gaussian_sigma is not None else 0.02

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        sigmas, lam = ddpm_grid(self.steps, spacing=self.spacing), self.weight(problem)
        x = math.sqrt(1 + sigmas[0] ** 2) * randn_like(zeros_for(problem, y), generator)

        exact = ExactStep(problem, y) if self.data_step == "exact" else None

        def data_step(z: Tensor, sigma: float) -> Tensor:
            mu = lam / sigma**2
            if exact is not None:
                return exact(z, mu)
            return adam_step(problem, y, z, mu, self.adam_steps, self.adam_lr)

        return half_quadratic(prior, x, sigmas, data_step, self.zeta, generator, self.clip)
