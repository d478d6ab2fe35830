"""DiffPIR: half-quadratic splitting along the reverse diffusion, with the exact data step.

Source: Zhu et al. 2023, "Denoising Diffusion Models for Plug-and-Play Image Restoration",
Algorithm 1, and the authors' code. In σ-space, over K levels of the DDPM grid, for k = K … 1:

    z = clip(D(x, σ_k))
    x̂ = argmin_x −log p(y | A x) + λ/(2σ_k²) ‖x − z‖²
    x ← x̂ + σ_{k−1} (√(1 − ζ) n̂ + √ζ ξ),   n̂ = (x − x̂)/σ_k

With Gaussian noise the second line is argmin ‖A x − y‖² + ρ ‖x − z‖², ρ = λ σ_y²/σ_k². The code
takes σ_y on [0, 1] and σ_k on [-1, 1], so that its λ acts as a quarter of itself: λ = 1 there is
0.25 here, where both are on [-1, 1]. In the same way its floor of 0.001 for σ_y is 0.002 here. The
code leaves out the data step at the last level and returns x as it was before the last evaluation,
in noise of 0.01; here all K evaluations count, as in the paper. It also puts α_K y into the start,
where α_K = 0.006.

Chen and Liu compare with gradient steps in place of the second line: 50 of size 0.1, λ = 7, ζ = 1,
on bits read as linear. Whose steps they are they do not say; here they are Adam's, as in their own
method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.adam import adam_step
from diffsplit.data_steps.exact import ExactStep, check_exact
from diffsplit.data_steps.momentum import check_gradient
from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import Spacing, ddpm_grid
from diffsplit.solvers.any_channel import AnyChannelSolver, family_of, with_noise_floor
from diffsplit.solvers.base import TINY, Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.splitting.half_quadratic import half_quadratic
from diffsplit.solvers.variance_preserving import first_noise

__all__ = ["DiffPIR"]

CODE_FLOOR = 0.002
"""The noise that the authors' code takes for none, on [-1, 1]."""
SETTINGS: dict[str, dict[str, Any]] = {
    "inpainting": {"lam": 0.25, "zeta": 1.0},
    "super-resolution": {"lam": 1.75, "zeta": 0.25},
    "deblurring": {"lam": 1.75, "zeta": 0.1},
    "sums": {"lam": 1.75, "zeta": 1.0},
}
CHEN_LIU: dict[str, Any] = {"lam": 7.0, "zeta": 1.0, "data_step": "gradient"}


@dataclass(frozen=True)
class DiffPIR(AnyChannelSolver):
    """DiffPIR, for Gaussian noise and, with their likelihood, other channels.

    Each step is one evaluation of the network and one data step: an A and an Aᵀ with orthogonal
    rows, transforms with a spectrum in Gaussian noise, Newton's method elsewhere.

    Attributes:
        steps: K (paper: 100, and 20 for speed).
        lam: λ > 0. For blurs and super-resolution 1.75, which is the 7 that Chen and Liu quote as
            recommended, in the code's units; 0.25 for inpainting, which is the 1 of the code. The
            code has 1 for the others, too, and looks from 2 to 12 for the best.
        zeta: ζ in [0, 1] (code: 0.1 for blurs, 0.25 for super-resolution, 1 for inpainting).
            `for_problem` chooses λ and ζ among these.
        spacing: of the levels (code: "late", see `diffsplit.schedules.ddpm_grid`).
        data_step: "exact", or "gradient" for Chen and Liu's.
        gradient_steps, gradient_size: of the latter.
        reading: see `AnyChannelSolver`; with it `for_problem` takes Chen and Liu's settings.
    """

    steps: int = 100
    lam: float = 1.75
    zeta: float = 0.1
    spacing: Spacing = "late"
    data_step: Literal["exact", "gradient"] = "exact"
    gradient_steps: int = 50
    gradient_size: float = 0.1

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "100"

    def __post_init__(self) -> None:
        super().__post_init__()
        ddpm_grid(self.steps, spacing=self.spacing)
        positive = is_number(self.lam, TINY) and is_number(self.gradient_size, TINY)
        if not (positive and is_number(self.zeta, 0, 1) and are_counts(self.gradient_steps)):
            raise InputError(
                "DiffPIR needs lam and gradient_size > 0, 0 ≤ zeta ≤ 1 and whole gradient_steps ≥ "
                f"1, not {self}."
            )
        if self.data_step not in ("exact", "gradient"):
            raise InputError(f"data_step is 'exact' or 'gradient', not {self.data_step!r:.40}.")

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """With the settings for such a problem; for bits read as linear, those of Chen and Liu."""
        if settings.get("reading") is not None and problem.channel.gaussian_sigma is None:
            return cls(**{**CHEN_LIU, **settings})
        return cls(**{**SETTINGS[family_of(problem)], **settings})

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        if self.data_step == "exact":
            check_exact(with_noise_floor(problem, CODE_FLOOR))
        else:
            check_gradient(problem.channel)

    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        noisy = with_noise_floor(problem, CODE_FLOOR)
        sigmas = ddpm_grid(self.steps, spacing=self.spacing)

        exact = ExactStep(noisy, y) if self.data_step == "exact" else None

        def data_step(z: Tensor, sigma: float) -> Tensor:
            mu = self.lam / sigma**2
            if exact is not None:
                return exact(z, mu)
            return adam_step(noisy, y, z, mu, self.gradient_steps, self.gradient_size)

        x = first_noise(zeros_for(problem, y), sigmas[0], generator)
        return half_quadratic(prior, x, sigmas, data_step, self.zeta, generator)
