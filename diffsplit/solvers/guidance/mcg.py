"""MCG: manifold constrained gradients, and what was measured put in its place.

Source: Chung et al. 2022, "Improving Diffusion Models for Inverse Problems using Manifold
Constraints", Algorithm 1, and the authors' code. With P = A⁺A, the projector on what A measures, in
the notation of `dps`:

    x̂0 = clip(D(x, σ))
    x' = ancestral step from σ to σ', with x̂0
    x' ← x' − ζ/(α' α) ∇_x ‖A⁺(y − A x̂0(x))‖₂
    x  ← (I − P) x' + P α/α' (A⁺y + σ ξ)

The last term is what was measured, in the noise of the level σ that the step left and not σ' that
it reached: paper and code draw it so, and noise of the lowest level is left in what was measured,
0.01 with 1000 steps and 0.04 with 100. ``level="reached"`` takes σ'.

The paper leaves the weight W of ‖W(y − A x̂0)‖ open. The code has the mask for inpainting and A⁺
for tomography, and both are A⁺. The MCG inside the code of DPS is another: a
blur's transpose is the identity there, and a mask's projection subtracts what was measured.

The method does not know noise: what is measured is taken to be exact, and A⁺ multiplies the noise
in it. Behind a blur that noise can hide the image, and the result's ``note`` says so.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.operators import LinearOperator, ScaledIdentity
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.base import Algorithm, is_number, zeros_for
from diffsplit.solvers.guidance.gradient import clipped_vjp, per_norm
from diffsplit.solvers.linear_model import LinearModelSolver
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import stepped
from diffsplit.solvers.variance_preserving import alpha, first_noise, vp_step

__all__ = ["MCG"]

NOISY_GAIN = 2.0
"""From here on the result says that the noise of the measurements grows in the image."""


@dataclass(frozen=True)
class MCG(LinearModelSolver):
    """MCG, for operators with orthogonal rows or a spectrum; its answer is one sample.

    Each step is a forward and a backward pass of the network, and two projections.

    Attributes:
        steps: of the DDPM grid, evenly spaced (paper: 1000).
        zeta: ζ ≥ 0 (code: 1).
        level: of the noise in what was measured: "left", as in the paper, or "reached".
        cutoff: singular values below this share of the largest count as 0. Without noise 0.01
            keeps the inverse of a blur in the range of numbers; noise is multiplied by up to
            1/cutoff.
        reading: see `LinearModelSolver`.
    """

    steps: int = 1000
    zeta: float = 1.0
    level: Literal["left", "reached"] = "left"
    cutoff: float = 0.01

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = (
        "orthogonal rows or a spectrum; Gaussian noise, other channels read as linear"
    )
    cost: ClassVar[str] = "1000, with backpropagation"

    def __post_init__(self) -> None:
        super().__post_init__()
        ddpm_grid(self.steps)
        if not (is_number(self.zeta, 0) and is_number(self.cutoff, 0, 1)):
            raise InputError(f"MCG needs zeta ≥ 0 and a cutoff from 0 to 1, not {self}.")
        if self.level not in ("left", "reached"):
            raise InputError(f"level is 'left' or 'reached', not {self.level!r:.40}.")

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def check(self, problem: Problem, prior: Denoiser) -> None:
        operator = problem.operator
        if not isinstance(operator.gram, ScaledIdentity) and not operator.has_spectrum:
            raise InputError(
                "MCG projects on what the operator measures, which needs orthogonal rows or a "
                f"spectrum, and {type(operator).__name__} has neither; use DPS."
            )

    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        sigmas, space = ddpm_grid(self.steps), _MeasuredSpace(problem.operator, self.cutoff)
        measured = space.pseudo_inverse(y)
        x = first_noise(zeros_for(problem, y), sigmas[0], generator)
        for sigma, after in itertools.pairwise(sigmas):
            clean, pullback = clipped_vjp(prior, x, sigma)
            miss = space.project(clean) - measured
            gradient = pullback(per_norm(miss, miss.flatten(1).norm(dim=1)))
            step = self.zeta * vp_step(sigma, after)
            x = stepped(x, clean, sigma, after, generator) - step * gradient
            level = after if self.level == "reached" else sigma
            share = alpha(level) / alpha(after)
            noise = share * level * randn_like(x, generator)
            x = x - space.project(x - noise) + share * measured
            yield State(sigma, clean)
        return Answer(x, note=_noise_note(problem, space.gain))


def _noise_note(problem: Problem, gain: float) -> str:
    """What A⁺ makes of the noise in y, where it is worth a word."""
    sigma = problem.channel.gaussian_sigma or 0.0
    if sigma == 0 or gain < NOISY_GAIN:
        return ""
    return (
        f"MCG takes the measurements to be exact, and puts their noise of {sigma:.2g} into the "
        f"image {gain:.1f} times as large; DiffEP and DPS know noise."
    )


class _MeasuredSpace:
    """A⁺ and P = A⁺A of an operator, where they are cheap."""

    def __init__(self, operator: LinearOperator, cutoff: float) -> None:
        self.operator = operator
        self.orthogonal = isinstance(operator.gram, ScaledIdentity)
        if not self.orthogonal:
            self.spectrum = operator.spectrum()
            s = self.spectrum.singular_values
            self.seen = (s > cutoff * s.max()).to(s)
            self.inverse = torch.where(self.seen > 0, 1 / s, 0)

    @property
    def gain(self) -> float:
        """Root-mean-square of A⁺ n over the entries of the image, for white n of variance 1."""
        if self.orthogonal:
            m, n = math.prod(self.operator.shape_out), math.prod(self.operator.shape_in)
            return math.sqrt(m / n / self.operator.gram.mean)
        return float(self.inverse.square().mean().sqrt())

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A⁺ y ``(B, *shape_in)``."""
        if self.orthogonal:
            return self.operator.adjoint(y) / self.operator.gram.mean
        return self.spectrum.filter_measurement(y, self.inverse)

    def project(self, x: Tensor) -> Tensor:
        """P x ``(B, *shape_in)``."""
        if self.orthogonal:
            return self.operator.adjoint(self.operator.apply(x)) / self.operator.gram.mean
        return self.spectrum.filter(x, self.seen)
