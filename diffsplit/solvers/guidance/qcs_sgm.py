"""QCS-SGM: annealed Langevin dynamics with the score of the prior and of the measurements.

At geometric levels σ_1 > … > σ_L, from x = σ_1 n, T times at each level

    x ← x + ε_k (∇log p(x) + Aᵀ g) + √(2 ε_k) ξ,   ε_k = ε (σ_k/σ_L)²
    ∇log p(x) = (D(x, σ_k) − x)/σ_k²

The pseudo-likelihood takes the clean image to be x in white noise of level σ_k, and the rows a_i
of A to be orthogonal: (A x0)_i ~ N(p_i, τ_i) with p = A x and τ_i = ‖a_i‖² σ_k². So g_i is the
score of the evidence, ∂ log ∫ p(y_i | s) N(s; p_i, τ_i) ds/∂p_i, which every channel knows. For one
bit, with v² = σ_ε² + τ_i, it is y φ(p/v)/(v Φ(y p/v)). The authors' code keeps Φ above 10⁻⁶, which
takes the gradient from signs that are badly wrong; here it is exact in the tails.

Source: Meng and Kabashima, "Quantized Compressed Sensing with Score-Based Generative Models", ICLR
2023, Algorithm 1 and Eq. 11 to 13. Settings of their code, for networks whose images are on [0, 1]:

    256×256   L = 2311 from 348 to 0.01, T = 3, ε = 5·10⁻⁵ for one bit, 2·10⁻⁵ for more
    64×64     L = 500 from 90 to 0.01,   T = 5, ε = 2·10⁻⁴

On [-1, 1] levels double and ε/σ_L², `step` here, stays: 0.5, 0.2 and 2. The table of Chen and Liu
took T = 5, 11,555 evaluations. Their networks find the noise level from the image; a denoiser is
told it, and with a step of 2 its error grows unseen. For small images `for_problem` takes fewer
levels and a step that a denoiser bears. The authors return the last x, with its noise of σ_L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import TINY, Algorithm, Solver, are_counts, is_number, zeros_for
from diffsplit.solvers.recovery import Answer, State

__all__ = ["QCSSGM"]

SMALL_SIDE = 64
"""Images of up to so many pixels a side count as small."""
SMALL_LEVELS, SMALL_INNER, SMALL_STEP = 100, 5, 0.2
"""With 768 single bits of cats and as many evaluations a step of 0.1 gives 12.0 dB, 0.2 gives 13.3
and 0.5 gives 11.1 (two images)."""
MOST_OVERLAP = 4.0
"""‖A‖² over the mean ‖a_i‖²: 1 for orthogonal rows, 4 for a square Gaussian matrix."""


@dataclass(frozen=True)
class QCSSGM(Solver):
    """QCS-SGM, for any channel; its answer is one draw.

    Its operators have nearly orthogonal rows: masks, block means, random matrices and transforms.
    Each step is one evaluation, an A and an Aᵀ. Row norms are those of
    `LinearOperator.row_square_norms`.

    Attributes:
        levels: L, noise levels (paper: 2311 at 256×256).
        inner: T, steps and evaluations at each level (paper: 5).
        step: ε/σ_L², below 2/(1 + ‖A‖²/mean ‖a_i‖²) (paper: 0.5 for one bit at 256×256).
        sigma_max, sigma_min: σ_1 and σ_L (paper: 696 and 0.02), moved into the prior's range.

    Raises:
        InputError: parameters out of range; when called, rows that are far from orthogonal, or a
            step that diverges.
    """

    levels: int = 2311
    inner: int = 5
    step: float = 0.5
    sigma_max: float = 696.0
    sigma_min: float = 0.02

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)
    accepts: ClassVar[str] = "nearly orthogonal rows (masks, random rows), any channel"
    cost: ClassVar[str] = "11,555; 500 for images of 64×64"

    def __post_init__(self) -> None:
        sound = is_number(self.sigma_min, TINY) and is_number(self.sigma_max, self.sigma_min)
        if not (are_counts(self.levels, self.inner) and is_number(self.step, TINY) and sound):
            raise InputError(
                "QCSSGM needs whole levels and inner ≥ 1, a step above 0, and 0 < sigma_min ≤ "
                f"sigma_max, not {self}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        preset: dict[str, Any] = {}
        if max(problem.operator.shape_in[-2:]) <= SMALL_SIDE:
            preset = {"levels": SMALL_LEVELS, "inner": SMALL_INNER, "step": SMALL_STEP}
        elif problem.channel.outcomes != 2:
            preset = {"step": 0.2}
        return cls(**preset | settings)

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels

    def check(self, problem: Problem, prior: Denoiser) -> None:
        operator = problem.operator
        largest = operator.norm() ** 2 / operator.gram.mean
        if largest > MOST_OVERLAP:
            raise InputError(
                f"QCSSGM takes the rows of A to be orthogonal, and those of {operator} overlap; "
                "use a PixelMask or random rows in its place, or the solver DiffEP, which takes "
                "any operator."
            )
        if self.step * (1 + largest) >= 2:
            raise InputError(
                f"a step of {self.step:g} diverges with {operator}; choose one below "
                f"{2 / (1 + largest):.2g}."
            )

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        operator, channel = problem.operator, problem.channel
        low = max(self.sigma_min, prior.sigma_min)
        high = max(min(self.sigma_max, prior.sigma_max), low)
        ratio = (low / high) ** (1 / max(self.levels - 1, 1))
        x = zeros_for(problem, y)
        rows = operator.row_square_norms().to(x)
        x = high * randn_like(x, generator)
        for level in range(self.levels):
            sigma = high * ratio**level
            epsilon, tau = self.step * sigma**2, sigma**2 * rows
            for _ in range(self.inner):
                clean = prior.denoise(x, sigma)
                g, _ = channel.evidence_score(operator.apply(x), y, tau)
                score = (clean - x) / sigma**2 + operator.adjoint(g)
                x = x + epsilon * score + math.sqrt(2 * epsilon) * randn_like(x, generator)
            yield State(sigma, prior.clip(clean))
        return Answer(x)
