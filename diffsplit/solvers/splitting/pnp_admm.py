"""PnP-ADMM: the alternating direction method of multipliers with a denoiser plugged in.

Source: Chan et al. 2016, "Plug-and-Play ADMM for Image Restoration"; with ρ = 0.2 and 12 iterations
as the DPS paper (Chung et al. 2023, Appendix) compares with it, whose denoiser was another network.
Over falling levels σ_1 > … > σ_K, from z = u = 0:

    x = argmin_x −log p(y | A x) + ρ/(2σ_k²) ‖x − (z − u)‖²
    z = clip(D(x + u, σ_k))
    u ← (u + x − z) σ_{k+1}²/σ_k²

The last factor belongs to the scaled multiplier, which is in units of the penalty. If D were the
proximal map of −σ² log p(x0), as it is for a Gaussian prior, the fixed point would be the minimiser
of −log p(y | A x) − ρ log p(x) at every σ_k, so that falling levels only change the way there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.data_steps.exact import ExactStep, check_exact
from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import log_grid
from diffsplit.problem import Problem
from diffsplit.solvers.any_channel import AnyChannelSolver, with_noise_floor
from diffsplit.solvers.base import TINY, Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.problem_facts import NOISE_FLOOR
from diffsplit.solvers.recovery import Answer, State

__all__ = ["PnPADMM"]


@dataclass(frozen=True)
class PnPADMM(AnyChannelSolver):
    """PnP-ADMM, for Gaussian noise and, with their likelihood, other channels. It draws no noise.

    Each iteration is one evaluation of the network and one exact data step. Noiseless real numbers
    are taken to have 0.001 of noise.

    Attributes:
        iterations: K (DPS paper: 12).
        rho: ρ > 0 (DPS paper: 0.2).
        start, end: σ_1 ≥ σ_K > 0, spaced evenly in log σ; ours.
        reading: see `AnyChannelSolver`.
    """

    iterations: int = 12
    rho: float = 0.2
    start: float = 1.0
    end: float = 0.05

    step_fields: ClassVar[tuple[str, ...]] = ("iterations",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "12"

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = all(is_number(value, TINY) for value in (self.rho, self.start, self.end))
        if not (are_counts(self.iterations) and numbers and self.start >= self.end):
            raise InputError(
                f"PnPADMM needs whole iterations ≥ 1, rho > 0 and start ≥ end > 0, not {self}."
            )

    def steps_at_most(self, problem: Problem) -> int:
        return self.iterations

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        check_exact(with_noise_floor(problem, NOISE_FLOOR))

    @property
    def levels(self) -> list[float]:
        """σ_1 … σ_K."""
        if self.iterations == 1 or self.start == self.end:
            return [self.start] * self.iterations
        return log_grid(self.end, self.start, self.iterations)[::-1]

    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        data_step, levels = ExactStep(with_noise_floor(problem, NOISE_FLOOR), y), self.levels
        z = u = zeros_for(problem, y)
        for sigma, after in itertools.pairwise([*levels, levels[-1]]):
            x = data_step(z - u, self.rho / sigma**2)
            z = prior.clip(prior.denoise(x + u, sigma))
            u = (u + x - z) * (after / sigma) ** 2
            yield State(sigma, z)
        return Answer(z)
