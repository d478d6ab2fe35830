"""Diff-OneBit: half-quadratic splitting along the reverse diffusion.

Source: Chen and Liu, "Diffusion Model Based Signal Recovery Under 1-Bit Quantization",
Algorithm 1 (ζ = 0) and Algorithm 2 (ζ > 0). In σ-space, over K levels of the DDPM grid and from
x = √(1 + σ_K²) n, for k = K … 1:

    z  = D(x, σ_k)                                             line 3
    x̂  = argmin_x −log p(y | A x) + μ_k/2 ‖x − z‖²,  μ_k = λ/σ_k²     line 4, Eq. (26)
    n̂  = (x − x̂)/σ_k                                           line 5
    x  ← x̂ + σ_{k−1} (√(1 − ζ) n̂ + √ζ ξ)                       line 6
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffsplit.data_steps.adam import adam_step
from diffsplit.data_steps.exact import check_exact, exact_step
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Prior, per_image
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Answer, Solver, Watch, whole, zeros_for

__all__ = ["DiffOneBit"]


@dataclass(frozen=True)
class DiffOneBit(Solver):
    """Diff-OneBit, for any channel with a gradient.

    Attributes:
        steps: K, the number of noise levels and network evaluations (paper: 20, 50, 100).
        lam: λ, the weight of the prior (paper: 0.02 for compressed sensing and logistic
            regression, 1 for 1-bit inpainting; for Gaussian noise on a blur try 1 to 5).
        zeta: ζ in [0, 1], the share of fresh noise (paper: 0).
        data_step: ``"adam"``, the paper's inexact step that made its tables, or ``"exact"``.
        adam_steps, adam_lr: of the inexact step (paper: 100 and 0.25).
    """

    steps: int = 20
    lam: float = 0.02
    zeta: float = 0.0
    data_step: Literal["adam", "exact"] = "adam"
    adam_steps: int = 100
    adam_lr: float = 0.25

    def __post_init__(self) -> None:
        counts = whole(self.steps, self.adam_steps)
        sizes = 0 < self.lam < math.inf and 0 < self.adam_lr < math.inf
        if not (counts and sizes and 0 <= self.zeta <= 1):
            raise InputError(
                "DiffOneBit needs whole steps and adam_steps ≥ 1, finite lam and adam_lr > 0, and "
                f"0 ≤ zeta ≤ 1, not {self}."
            )
        if self.data_step not in ("adam", "exact"):
            raise InputError(f"data_step is 'adam' or 'exact', not {self.data_step!r}.")
        ddpm_grid(self.steps)

    @property
    def steps_at_most(self) -> int:
        return self.steps

    def check(self, problem: Problem, prior: Prior) -> None:
        if self.data_step == "exact":
            check_exact(problem)
        elif not problem.channel.smooth:
            raise InputError(
                f"the Adam data step needs the gradient of the likelihood, which {problem.channel} "
                "lacks; give it a noise level sigma > 0, or use data_step='exact'."
            )

    def _data_step(self, problem: Problem, y: Tensor, z: Tensor, mu: float) -> Tensor:
        if self.data_step == "exact":
            return exact_step(problem, y, z, mu)
        return adam_step(problem, y, z, mu, self.adam_steps, self.adam_lr)

    def _solve(
        self, problem: Problem, y: Tensor, prior: Prior, generator: Generators, watch: Watch
    ) -> Answer:
        sigmas = ddpm_grid(self.steps)
        x = math.sqrt(1 + sigmas[0] ** 2) * randn_like(zeros_for(y, prior), generator)
        for sigma, sigma_next in itertools.pairwise(sigmas):
            z = prior.denoise(x, sigma)
            x_hat = self._data_step(problem, y, z, self.lam / sigma**2)
            n_hat = (x - x_hat) / sigma
            noise = math.sqrt(1 - self.zeta) * n_hat
            if self.zeta > 0:
                noise = noise + math.sqrt(self.zeta) * randn_like(x, generator)
            x = x_hat + sigma_next * noise
            watch(per_image(sigma, len(x), x), x_hat, problem.operator.apply(x_hat))
        return Answer(x)
