"""PSLD: posterior sampling with latent diffusion, for σ = σ_T … σ_1 with the next level σ'.

    ẑ = D(z, σ),   x̂ = decoder(ẑ),   x̃ = x̂ + Aᵀ(y − A x̂)/‖A‖²
    z ← DDIM step from z to σ', towards ẑ
    z_{t'} ← z_{t'} − ∇_{z_t} [ω ‖y − A x̂‖ + γ ‖encoder(x̃) − ẑ‖]      z_t = z/√(1 + σ²)

x̃ is x̂ glued to the measurements. The second norm vanishes at latents that the autoencoder gives
back, and so chooses among the many that decode to the same picture.

Source: Rout et al. 2023, Algorithm 2 and Eq. (6), and its public code. Where these differ:
- The text takes ancestral steps, the code DDIM (``ddim_eta`` 0), which made its tables: ``eta``.
- Aᵀ of the text is the pseudo-inverse where A Aᵀ = I, which it assumes. The code takes nearest
  up-sampling for super-resolution, which is Aᵀ/‖A‖² of block averages, y itself for masks, both as
  here, and for blurs the identity, which is no transpose; here it is Aᵀ/‖A‖² for these, too.
- The code adds fresh measurement noise to A x̂ in each step, and the text does not; nor does this.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.derivative import differentiated
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

__all__ = ["PSLD"]

SUPER_RESOLUTION = 0.9
"""ω of the code for super-resolution; 0.1 elsewhere."""
PAPER_STEPS = 1000


@dataclass(frozen=True)
class PSLD(GuidedInLatents):
    """PSLD with a latent diffusion model, for linear measurements in Gaussian noise.

    Each step goes forward and back through the denoiser, the decoder and the encoder. The trace is
    in pixels.

    Attributes:
        steps: noise levels, and network evaluations, evenly spaced on the DDPM grid (paper: 1000).
        omega: ω, weight of the misfit (code, latents of 256×256 faces: 0.1, and 0.9 for
            super-resolution; Stable Diffusion: 1) for 1000 steps; fewer are longer in proportion,
            and the last ones can overshoot (0.9 does with 200 steps on `cats-64-latent`): then
            take a smaller ω.
        gamma: γ, weight of the gluing (code: 0.1) for 1000 steps.
        eta: share of fresh noise in a step: 0 DDIM, as in the code, 1 ancestral, as in the text.

    Raises:
        InputError: parameters out of range.
        DivergenceError: the steps were too long.
    """

    steps: int = 1000
    omega: float = 0.1
    gamma: float = 0.1
    eta: float = 0.0

    cost: ClassVar[str] = "1000, each with a gradient through denoiser, decoder and encoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            are_counts(self.steps)
            and self.steps <= 1000
            and is_number(self.omega, 0)
            and is_number(self.gamma, 0)
            and is_number(self.eta, 0, 1)
        ):
            raise InputError(
                "PSLD needs 1 to 1000 steps, omega and gamma ≥ 0 and eta from 0 to 1, not "
                f"{self.steps}, {self.omega}, {self.gamma} and {self.eta}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """The weights of the code: ω is 0.9 for reductions and 0.1 for everything else."""
        if (problem.operator.stride or 1) > 1:
            settings = {"omega": SUPER_RESOLUTION, **settings}
        return cls(**settings)

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: LatentModel, generator: Generators
    ) -> Algorithm:
        operator, grid = problem.operator, ddpm_grid(self.steps)
        scale, longer = 1 / operator.norm() ** 2, PAPER_STEPS / self.steps
        z = first_latents(prior, y, grid[0], generator)
        for now, after in itertools.pairwise(grid):
            at = decoded(prior, z, now)
            missing = y - operator.apply(at.image)
            pulled = operator.adjoint(missing)
            glued = at.image + scale * pulled
            encoded, through_encoder = differentiated(prior.encode, glued)
            gap = unit(encoded - at.estimate)
            gluing = through_encoder(gap)  # x̃ depends on x̂ by I − AᵀA/‖A‖²
            gluing = gluing - scale * operator.adjoint(operator.apply(gluing))
            in_pixels = self.gamma * gluing - self.omega * unit(pulled, of=missing)
            slope = at.pullback(in_pixels, -self.gamma * gap)
            z = stepped(z, at.clean, now, after, generator, self.eta)
            z = z - longer * vp_step(now, after) * slope
            yield State(now, at.image)
        return Answer(prior.decode(z))
