"""QCS-SGM: annealed Langevin dynamics with the score of the measurements in closed form.

For geometric levels σ_1 > … > σ_L, with T steps at each, from x = σ_1 n:

    x ← x + ε_k (∇log p(x) + Aᵀ g) + √(2 ε_k) ξ,   ε_k = ε (σ_k/σ_L)²
    ∇log p(x) = (D(x, σ_k) − x)/σ_k²,   g = ∂ log Z/∂p at p = A x, τ_i = σ_k² ‖a_i‖²

Z is the evidence of a measurement when s ~ N(p, τ): the image is taken to be x in white noise of
level σ_k, the rows of A to be orthogonal. For one bit g is y φ(z)/(v Φ(y z)) with v² = σ_ε² + τ and
z = A x/v; any other channel has its own. The answer is D of the last x.

Source: Meng and Kabashima, "Quantized Compressed Sensing with Score-Based Generative Models", ICLR
2023, Algorithm 1 and Eq. 11 to 13, whose public code bounds Φ from below by 10⁻⁶, which takes the
gradient from signs that are badly wrong; here it is exact. The code takes ε = 5·10⁻⁵ and T = 3 for
one bit at 256×256, the table of Chen and Liu T = 5 (11,555 evaluations).
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

SMALL_SIDE, SMALL_LEVELS = 64, 500
"""Images of up to so many pixels a side take the public code's levels for CelebA."""


@dataclass(frozen=True)
class QCSSGM(Solver):
    """QCS-SGM, annealed Langevin dynamics with quantized measurements, for any channel.

    Attributes:
        levels: L, noise levels (paper: 2311 at 256×256, 500 at 64×64).
        inner: T, Langevin steps and network evaluations at each level.
        step: ε/σ_L², the size of a step (paper: 0.5 at 256×256).
        sigma_max, sigma_min: σ_1 and σ_L on images in [-1, 1], moved into the prior's range.
    """

    levels: int = 2311
    inner: int = 5
    step: float = 0.5
    sigma_max: float = 696.0
    sigma_min: float = 0.02

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)
    cost: ClassVar[str] = "11,555; 2,500 for images of 64×64"

    def __post_init__(self) -> None:
        sound = is_number(self.sigma_min, TINY) and is_number(self.sigma_max, self.sigma_min)
        if not (are_counts(self.levels, self.inner) and is_number(self.step, TINY) and sound):
            raise InputError(
                "QCSSGM needs whole levels and inner ≥ 1, a step above 0, and 0 < sigma_min ≤ "
                f"sigma_max, not {self}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        small = max(problem.operator.shape_in[-2:]) <= SMALL_SIDE
        return cls(**({"levels": SMALL_LEVELS} if small else {}) | settings)

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels

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
            size = self.step * sigma**2
            for _ in range(self.inner):
                clean = prior.denoise(x, sigma)
                p = operator.apply(x)
                g, _ = channel.evidence_score(p, y, (sigma**2 * rows).expand_as(p))
                drift = self.step * (clean - x) + size * operator.adjoint(g)
                x = x + drift + math.sqrt(2 * size) * randn_like(x, generator)
            yield State(sigma, clean)
        return Answer(prior.denoise(x, low))
