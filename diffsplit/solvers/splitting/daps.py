"""DAPS: decoupled annealing, which draws each noisy image anew from a clean one.

Source: Zhang et al. 2025, "Improving Diffusion Inverse Problem Solving with Decoupled Noise
Annealing", Algorithm 1, and the authors' code. Over K levels, from x = σ_1 n, for k = 1 … K:

    x̂0 = end of the probability-flow ODE from x at σ_k to 0.01, in a few Euler steps
    z  = x̂0, then n Langevin steps with step size η_k
         z ← z + η [−∇‖A z − y‖²/τ² − (z − x̂0)/σ_k²] + √(2η) ξ
    x  ← z + σ_{k+1} n,   σ_{K+1} = 0

The paper has the likelihood's ‖A z − y‖²/(2σ_y²). The code, which made the tables, has τ² = 0.01²
in place of 2σ_y², whatever the noise: it believes measurements to have noise of τ/√2 = 0.007. η_k
falls in a straight line to 1 %. Levels and ODE steps are spaced as by Karras with ρ = 7; the code
makes K + 1 levels down to 0.1 and puts 0 in place of the last.

On a quadratic the n steps are one draw from a Gaussian, independent for each direction of the
spectrum: with a = 1 − η(2s²/τ² + 1/σ²) and b = η(2 s d/τ² + ĉ/σ²) a coefficient ĉ of x̂0 and d of y

    c = aⁿ ĉ + b Σ_{j<n} aʲ + √(2η Σ_{j<n} a²ʲ) ξ

so that they cost two transforms where there is a spectrum, and have the same distribution.

On a quadratic Langevin diverges for η(2‖A‖²/τ² + 1/σ²) > 2. The code's η = 1e-4 is that bound for
an operator of norm 1. On a random matrix of norm 5, as M/N = 1/16 has, it gives NaN, for which the
code returns zeros, an image of 11 to 12 dB. Here η is limited to the bound unless it is given.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.momentum import check_gradient, default_step_size, misfit_grad
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import karras_grid
from diffsplit.solvers.any_channel import AnyChannelSolver
from diffsplit.solvers.base import TINY, Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.reverse import reverse_diffusion

__all__ = ["DAPS"]

HIGHEST, LOWEST, ODE_END = 100.0, 0.1, 0.01
LAST_SHARE = 0.01
"""Of the step size, at the last level."""
STEP_SIZE = 1e-4


@dataclass(frozen=True)
class DAPS(AnyChannelSolver):
    """DAPS, for any channel with a gradient; its answer is one posterior sample.

    Each level is ``ode_steps`` evaluations of the network and ``langevin_steps`` of A and Aᵀ each.

    Attributes:
        levels: K (paper: 200 for DAPS-1K).
        ode_steps: Euler steps and network evaluations a level (paper: 5).
        langevin_steps: n (paper: 100).
        step_size: η_1 > 0. None takes 1e-4, limited so that Langevin does not diverge. The code has
            1e-4 for super-resolution, Gaussian blur and random masks, and 5e-5 for motion blur and
            boxes. A size that is given is taken as it is.
        tau: τ > 0, of Gaussian noise (code: 0.01). None takes √2 σ_y, the exact likelihood, which
            wants a step_size of about σ_y²/2 to settle; then what A does not see varies too much,
            since N(x̂0, σ_k²) is wider than x0 given x. Other channels always have their own.
        reading: see `AnyChannelSolver`.
    """

    levels: int = 200
    ode_steps: int = 5
    langevin_steps: int = 100
    step_size: float | None = None
    tau: float | None = 0.01

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "1000, and 20,000 gradient steps of the data"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = are_counts(self.levels, self.ode_steps, self.langevin_steps)
        optional = [value for value in (self.step_size, self.tau) if value is not None]
        if not counts or not all(is_number(value, TINY) for value in optional):
            raise InputError(
                "DAPS needs whole levels, ode_steps and langevin_steps ≥ 1, and step_size and tau "
                f"above 0 or None, not {self}."
            )

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """With the code's step size for the tasks where it is not 1e-4."""
        if task in ("inpaint-box", "motion-deblur"):
            settings = {"step_size": 5e-5, **settings}
        return cls(**settings)

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        check_gradient(problem.channel)
        if self.tau is None and problem.channel.gaussian_sigma == 0:
            raise InputError(
                "Langevin steps need a likelihood with noise, and the measurements have none; "
                "leave tau at 0.01, which stands for little noise."
            )

    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        sigmas = [*karras_grid(self.levels + 1, HIGHEST, LOWEST)[: self.levels], 0.0]
        weight, curvature = self._likelihood(problem, y)
        exact = problem.channel.gaussian_sigma is not None and problem.operator.has_spectrum
        first = STEP_SIZE if self.step_size is None else self.step_size
        x = sigmas[0] * randn_like(zeros_for(problem, y), generator)
        for k, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
            grid = karras_grid(self.ode_steps + 1, sigma, ODE_END)[:-1]
            clean = reverse_diffusion(prior.denoise, x, grid, generator, eta=0.0)
            eta = first * (1 - k / (self.levels + 1) * (1 - LAST_SHARE))
            if self.step_size is None:
                eta = min(eta, 2 / (curvature + 1 / sigma**2))
            if exact:
                z = langevin_at_once(
                    problem, y, clean, weight, sigma, eta, self.langevin_steps, generator
                )
            else:
                z = clean.clone()
                for _ in range(self.langevin_steps):
                    slope = misfit_grad(problem, z, y)
                    z.lerp_(clean, eta / sigma**2).sub_(slope, alpha=eta * weight)
                    z.add_(randn_like(z, generator), alpha=math.sqrt(2 * eta))
            yield State(sigma, z)
            x = z if after == 0 else z + after * randn_like(z, generator)
        return Answer(x)

    def _likelihood(self, problem: Problem, y: Tensor) -> tuple[float, float]:
        """What `misfit_grad` is multiplied by, and the largest curvature of the likelihood."""
        sigma = problem.channel.gaussian_sigma
        weight = 1.0
        if sigma is not None:
            weight = 2 / self.tau**2 if self.tau is not None else 1 / sigma**2
        return weight, weight / default_step_size(problem, y)


def langevin_at_once(
    problem: Problem,
    y: Tensor,
    clean: Tensor,
    weight: float,
    sigma: float,
    eta: float,
    steps: int,
    generator: Generators,
) -> Tensor:
    """A draw with the distribution of ``steps`` Langevin steps from ``clean`` ``(B, *shape)``.

    Args:
        problem: Gaussian noise, and an operator with a spectrum.
        weight: 2/τ².
        sigma, eta: σ_k and η_k.
    """
    spectrum = problem.operator.spectrum()
    s = spectrum.singular_values
    a = 1 - eta * (weight * s.square() + 1 / sigma**2)
    total, squares = _geometric(a, steps), _geometric(a.square(), steps)
    kept, pull = a.pow(steps) + eta / sigma**2 * total, eta * weight * s * total
    noise = (2 * eta * squares).sqrt().to(clean) * spectrum.analyze(randn_like(clean, generator))
    c = kept.to(clean) * spectrum.analyze(clean) + noise
    return spectrum.synthesize(c + pull.to(clean) * spectrum.analyze_measurement(y))


def _geometric(a: Tensor, count: int) -> Tensor:
    """Σ_{j < count} aʲ."""
    return torch.where((1 - a).abs() < 1e-12, count, (1 - a.pow(count)) / (1 - a))
