"""ReSample: DDIM in latents, guided, and from time to time made consistent with the measurements.

Each step goes from σ to the next level σ' (ᾱ = 1/(1 + σ²), z_t = √ᾱ z):

    z ← DDIM step to σ',   z_{t'} ← z_{t'} − ζ ᾱ ∇_{z_t} ‖y − A decoder(ẑ)‖
    at every tenth index i of N, i ≤ 2N/3, moreover
        ẑ = the estimate after five more DDIM steps
        hard consistency: i ≥ N/3 in pixels   ẑ ← encoder(argmin ‖y − A x‖², from decoder(ẑ))
                          i < N/3 in latents  ẑ ← argmin ‖y − A decoder(z)‖², from ẑ
        z ← (v ẑ + z)/(1 + v) + σ' √(v/(1 + v)) ξ,   v = γ (1 − σ'²/σ²)      stochastic resampling

and at the end hard consistency in latents again. The last line is the posterior of z at σ' for
ẑ known with the variance v σ'² that the paper chooses, Proposition 1, in σ-space.

Source: Song et al. 2024, Algorithm 1, and its public code. Where these differ the code, which made
the tables, is followed:
- Its ẑ is z − σ √(1 − ᾱ) ε, which keeps the share 1 − √(1 − ᾱ) of the noise, and not Tweedie's
  formula of the text: ``estimate``. DDIM steps go towards D(z, σ) in both.
- The five steps are not in the text. Their noise levels in the code are one index off its network's
  timesteps; here they agree. Its last level is 0.01, here 0.
- Both stop hard consistency at a mean square of 1e-6; here that is at least σ_y².
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.hard import adamw_descent, has_nearest, nearest_consistent
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser, LatentModel
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, are_counts, is_number
from diffsplit.solvers.latent.decoded import decoded, first_latents, unit
from diffsplit.solvers.latent.guided import GuidedInLatents
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped
from diffsplit.solvers.variance_preserving import alpha, vp_step

__all__ = ["ReSample"]

PIXEL_RATE, LATENT_RATE = 1e-2, 5e-3
"""Learning rates of AdamW."""
PAPER_STEPS, PIXEL_STEPS = 500, 2000
INPAINTING_STEPS = 200


@dataclass(frozen=True)
class ReSample(GuidedInLatents):
    """ReSample with a latent diffusion model, for linear measurements in Gaussian noise.

    Network evaluations are ``steps``, and ``ahead`` more for each of the about ``2/3 steps/every``
    times of hard consistency. The trace is in pixels, before hard consistency.

    Attributes:
        steps: noise levels, evenly spaced on the DDPM grid (paper: 500).
        step_size: ζ (paper: 0.5) for 500 steps; fewer are longer in proportion, and very few can
            overshoot at the end: then take a smaller one.
        every: steps from one hard consistency to the next (code: 10).
        ahead: DDIM steps ahead of the estimate that is made consistent (code: 5).
        gamma: γ, how far resampling trusts that estimate (paper: 40).
        tolerance: root mean square of A x − y at which hard consistency ends (paper: 1e-3); None
            for that or σ_y, the larger.
        pixels: hard consistency in pixels, "nearest", the nearest image in closed form, where the
            operator has a spectrum or orthogonal rows, or "adamw", the paper's at most 2000 steps.
            They have the same limit where A keeps or drops single pixels; elsewhere they end at
            different images of the same misfit, see `diffsplit.data_steps.hard`.
        latent_steps: the most steps of AdamW in latents, each forward and back through the decoder:
            most of the time (paper: 500; code, for inpainting: 200).
        estimate: "code" or "tweedie", see `diffsplit.solvers.latent.resample`.

    Raises:
        InputError: parameters out of range.
        DivergenceError: the steps were too long.
    """

    steps: int = 500
    step_size: float = 0.5
    every: int = 10
    ahead: int = 5
    gamma: float = 40.0
    tolerance: float | None = None
    pixels: Literal["nearest", "adamw"] = "nearest"
    latent_steps: int = 500
    estimate: Literal["code", "tweedie"] = "code"

    cost: ClassVar[str] = "665, 500 of them with a gradient, and up to 8500 through the decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not are_counts(self.steps, self.every, self.ahead, self.latent_steps) or (
            self.steps > 1000
        ):
            raise InputError(
                "ReSample needs 1 to 1000 steps, and whole every, ahead and latent_steps ≥ 1, not "
                f"{self.steps}, {self.every}, {self.ahead} and {self.latent_steps}."
            )
        tolerance = 0.0 if self.tolerance is None else self.tolerance
        if not all(is_number(value, 0) for value in (self.step_size, self.gamma, tolerance)):
            raise InputError(
                "ReSample needs step_size, gamma and tolerance ≥ 0, not "
                f"{self.step_size}, {self.gamma} and {self.tolerance}."
            )
        if self.pixels not in ("nearest", "adamw") or self.estimate not in ("code", "tweedie"):
            raise InputError(
                "pixels is 'nearest' or 'adamw', and estimate 'code' or 'tweedie', not "
                f"{self.pixels!r:.40} and {self.estimate!r:.40}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """At most 200 steps in latents where pixels are missing, as a note in the code advises."""
        if problem.operator.pixels is not None:
            settings = {"latent_steps": INPAINTING_STEPS, **settings}
        return cls(**settings)

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: LatentModel, generator: Generators
    ) -> Algorithm:
        operator, grid, third = problem.operator, ddpm_grid(self.steps), self.steps // 3
        zeta = self.step_size * PAPER_STEPS / self.steps
        z = first_latents(prior, y, grid[0], generator)
        for i, (now, after) in enumerate(itertools.pairwise(grid)):
            at, index = decoded(prior, z, now, self._kept(now)), self.steps - 1 - i
            slope = at.pullback(-operator.adjoint(unit(y - operator.apply(at.image))), None)
            z = stepped(z, at.clean, now, after, generator, eta=0.0)
            z = z - zeta * alpha(now) ** 2 * vp_step(now, after) * slope
            if 0 < index <= self.steps - third and index % self.every == 0:
                clean = self._look_ahead(prior.latent, z, grid[i + 1 : i + 2 + self.ahead])
                hard = self._hard_in_pixels if index >= third else self._hard_in_latents
                clean = hard(problem, y, clean, prior)
                v = self.gamma * (1 - (after / now) ** 2)
                z = (v * clean + z) / (1 + v)
                z = z + after * math.sqrt(v / (1 + v)) * randn_like(z, generator)
            yield State(now, at.image)
        return Answer(prior.decode(self._hard_in_latents(problem, y, z, prior)))

    def _kept(self, sigma: float) -> float:
        """The share of the noise that stays in ẑ."""
        return 0.0 if self.estimate == "tweedie" else 1 - sigma * alpha(sigma)

    def _look_ahead(self, denoiser: Denoiser, z: Tensor, sigmas: Sequence[float]) -> Tensor:
        """ẑ after DDIM steps down a list of levels that starts at that of ``z``."""
        estimate = z
        for now, after in itertools.pairwise(sigmas):
            clean = denoiser.denoise(z, now)
            estimate = clean + self._kept(now) * (z - clean)
            z = clean + after / now * (z - clean)
        return estimate

    def _hard_in_pixels(self, problem: Problem, y: Tensor, z: Tensor, prior: LatentModel) -> Tensor:
        x, tolerance = prior.decode(z), self._tolerance(problem)
        if self.pixels == "nearest" and has_nearest(problem):
            return prior.encode(nearest_consistent(problem, y, x, tolerance))
        return prior.encode(adamw_descent(problem, y, x, PIXEL_STEPS, PIXEL_RATE, tolerance))

    def _hard_in_latents(
        self, problem: Problem, y: Tensor, z: Tensor, prior: LatentModel
    ) -> Tensor:
        tolerance, decode = self._tolerance(problem), prior.decode
        return adamw_descent(problem, y, z, self.latent_steps, LATENT_RATE, tolerance, decode)

    def _tolerance(self, problem: Problem) -> float:
        least = max(1e-3, problem.channel.gaussian_sigma or 0.0)
        return least if self.tolerance is None else self.tolerance
