"""Latent-DPS: diffusion posterior sampling in the latents of an autoencoder.

For σ = σ_T … σ_1, with the next level σ', a decoder and the denoiser D of latents:

    ẑ = D(z, σ),   x̂ = decoder(ẑ)
    z ← step of reverse diffusion from z to σ', towards ẑ
    z_{t'} ← z_{t'} − ζ ∇_{z_t} ‖y − A x̂‖                     z_t = z/√(1 + σ²)

The norm is that of each image, not its square.

Sources: Chung et al. 2023 (DPS), Algorithm 1, applied to latents; it is the baseline of Rout et al.
2023, Sec. 3.1, and of Song et al. 2024 (ReSample). No code of it is public. The sampler here is
that of DPS, 1000 ancestral steps, and ζ is that of its pixels; neither paper prints a value for
latents. ``eta=0`` is DDIM, as in the code of ReSample.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import LatentModel
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, are_counts, is_number
from diffsplit.solvers.latent.decoded import decoded, first_latents, unit
from diffsplit.solvers.latent.guided import GuidedInLatents
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped
from diffsplit.solvers.variance_preserving import vp_step

__all__ = ["LatentDPS"]

INPAINTING = 0.5
"""ζ of DPS where pixels are missing; 0.3 elsewhere."""
PAPER_STEPS = 1000


@dataclass(frozen=True)
class LatentDPS(GuidedInLatents):
    """DPS with a latent diffusion model, for linear measurements in Gaussian noise.

    Each step goes forward and back through the denoiser and the decoder. The trace is in pixels.

    Attributes:
        steps: noise levels, and network evaluations, evenly spaced on the DDPM grid (paper: 1000).
        step_size: ζ (DPS: 0.3 for blur and super-resolution, 0.5 for inpainting) for 1000 steps;
            fewer are longer in proportion, and very few can overshoot at the end.
        eta: share of fresh noise in a step: 1 ancestral, 0 DDIM.

    Raises:
        InputError: parameters out of range.
        DivergenceError: the steps were too long.
    """

    steps: int = 1000
    step_size: float = 0.3
    eta: float = 1.0

    cost: ClassVar[str] = "1000, each with a gradient through denoiser and decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            are_counts(self.steps)
            and self.steps <= 1000
            and is_number(self.step_size, 0)
            and is_number(self.eta, 0, 1)
        ):
            raise InputError(
                "LatentDPS needs 1 to 1000 steps, step_size ≥ 0 and eta from 0 to 1, not "
                f"{self.steps}, {self.step_size} and {self.eta}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """ζ of DPS for the task: 0.5 where pixels are missing."""
        if problem.operator.pixels is not None:
            settings = {"step_size": INPAINTING, **settings}
        return cls(**settings)

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: LatentModel, generator: Generators
    ) -> Algorithm:
        operator, grid = problem.operator, ddpm_grid(self.steps)
        zeta = self.step_size * PAPER_STEPS / self.steps
        z = first_latents(prior, y, grid[0], generator)
        for now, after in itertools.pairwise(grid):
            at = decoded(prior, z, now)
            slope = at.pullback(-operator.adjoint(unit(y - operator.apply(at.image))), None)
            z = stepped(z, at.clean, now, after, generator, self.eta)
            z = z - zeta * vp_step(now, after) * slope
            yield State(now, at.image)
        return Answer(prior.decode(z))
