"""Renoising: what message passing becomes where A sees some directions well and others not at all.

A blur, a mask or a down-sampling leaves an error that is not white, and a denoiser is made for
white noise. With the measurements of a direction read as an observation z̃ of variance ν (see
`observation`), a falling grid of levels σ, and x̂ the last answer,

    r = x̂ + min(1, σ²/ν)(z̃ − z) + √(σ² − ν)₊ ξ       along a direction that is seen
    r = x̂ + √(σ² − κ w)₊ ξ                            along one that is hidden
    x̂ ← D(r, σ)

Once σ is below every √ν, the step is r = x̂ + σ²/σ_y² Aᵀ(y − A x̂), whose fixed point is the
posterior mean for any Gaussian prior. Hidden directions get next to no fresh noise (κ is large):
r = x̂ there has E[x0 | seen] for its fixed point, and noise would make the mean a draw. At the end,
what r did not carry of the measurements is added, with q = (1/ν − 1/σ²)₊ and t the error of z:
z ← z + t q/(1 + t q)(z̃ − z).

Where no spectrum is known, `conjugate_gradients` does the same with A and Aᵀ.

The error w of the coordinates comes from the evidence. Where all directions are seen alike, it is
that of the extrinsic image x2 = (x̂ − α r)/(1 − α), with α the share of the fresh noise that the
denoiser let through, ⟨n, Δz⟩/⟨n, n⟩: the divergence by Stein's identity, at no further evaluation.

Single bits with little noise do not tell the contrast of a picture (see `has_faint_scale`); there
x̂ is held to the mean square of the prior's images.

A posterior sample is plain reverse diffusion with the denoiser E[x0 | x_σ, y], see `conditioned`,
down to noise that cannot be seen. The variance of two samples or more is the predicted error: what
hidden directions leave open shows in nothing else.

Source: Bendel et al. 2025 (DDfire) for renoising along the spectrum; the rest is ours.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import log_grid
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.problem_facts import has_faint_scale
from diffsplit.solvers.recovery import State
from diffsplit.solvers.reverse import walk
from diffsplit.solvers.sampling import SamplingSolver
from diffsplit.solvers.spectral.conditioned import ConditionedDenoiser
from diffsplit.solvers.spectral.conjugate_gradients import ConjugateGradientModule
from diffsplit.solvers.spectral.modules import DirectionsModule, RenoisingModule

__all__ = ["Renoising"]

HIGHEST, LOWEST = 2.0, 0.03
"""Ends of the grid: above the first, at 64×64 pixels, no detail survives, below the second none is
to be seen."""
SIDE = 64
ORDER = 1.9
"""Of the reverse diffusion: with 2 the variance of a Gaussian's samples is 1 to 4 % too large."""
SCALE_SPREAD = 0.4
"""Relative standard deviation of an answer's scale where single bits hardly tell it."""
SOLVED = 0.1
"""The most that a linear system may leave where a walk counts as converged."""
UNSOLVED = (
    "conjugate gradients did not solve the linear systems of the operator, which is nearly "
    "singular and has next to no noise: details may be missing"
)
FAINT_SCALE = (
    "single bits with little noise, behind an operator whose rows are not random, hardly tell the "
    "contrast of a picture: it may be wrong"
)


@dataclass(frozen=True)
class Renoising(SamplingSolver):
    """Renoising, for any operator whose rows are not random, and any channel.

    With a spectrum or orthogonal rows the error is kept for each direction. With A and Aᵀ alone,
    conjugate gradients whiten it: 60 to 125 applications of A Aᵀ a level, most without noise.

    Attributes:
        levels: noise levels, and denoiser evaluations, of a walk: to the mean, or to one sample.
        hidden_noise: κ ≥ 0: the larger, the less fresh noise in hidden directions. None stands for
            100, but single bits want more noise on the way: with two outcomes it is 4 where A
            sees its directions alike, and else 1.
        output, samples: see `SamplingSolver`.
    """

    levels: int = 20
    hidden_noise: float | None = None

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not are_counts(self.levels):
            raise InputError(f"levels is a whole number from 1 up, not {self.levels!r}.")
        if self.hidden_noise is not None and not is_number(self.hidden_noise, 0):
            raise InputError(f"hidden_noise is a number ≥ 0 or None, not {self.hidden_noise}.")

    @staticmethod
    def suits(problem: Problem) -> bool:
        """Whether the error that A leaves may be uneven: its rows are not known to be random."""
        return not isinstance(problem.operator.gram, IIDRows | RandomRows)

    def check(self, problem: Problem, prior: Denoiser) -> None:
        super().check(problem, prior)
        if not self.suits(problem):
            raise InputError(
                "renoising is for operators that leave an uneven error (a Blur, a Downsample, a "
                "PixelMask, your own), and random rows leave a white one; DiffEP chooses the "
                "algorithm for a problem."
            )
        if prior.sigma_max <= LOWEST:
            raise InputError(
                f"renoising starts at noise that hides every detail, and the prior knows σ up to "
                f"{prior.sigma_max:g} only; give one that was trained on more noise, up to 2 or so."
            )
        if self.sampler is not None or self.sample_steps is not None:
            raise InputError(
                "where A leaves an uneven error, samples take the diffusion model itself and as "
                "many steps as there are levels; leave out the sampler and sample_steps, which "
                "serve random operators."
            )

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels * (self.draws + (self.output == "mean"))

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        mean, draws, modules = None, [], []
        if self.output == "mean":
            modules.append(module_for(problem, y, prior))
            mean = yield from self._mean(problem, y, prior, generator, modules[-1])
        for number in range(1, self.draws + 1):
            modules.append(module_for(problem, y, prior))
            draw = yield from self._sample(prior, generator, modules[-1], number)
            draws.append(draw)
        samples = torch.stack(draws) if draws else None
        if mean is None:
            assert samples is not None  # at least one was drawn
            mean = samples[0]
        error = None
        if samples is not None and len(samples) > 1:
            error = samples.var(0).flatten(1).mean(1)
        if has_faint_scale(problem):
            if error is not None:
                error = error + SCALE_SPREAD**2 * mean.flatten(1).square().mean(1)
            unsure = torch.zeros(len(y), dtype=torch.bool, device=y.device)
            return self.answer(mean, samples, error, unsure, FAINT_SCALE)
        left = [module.unsolved for module in modules if module.unsolved is not None]
        if not left:
            return self.answer(mean, samples, error)
        solved = torch.stack(left).amax(0) <= SOLVED
        return self.answer(mean, samples, error, solved, "" if bool(solved.all()) else UNSOLVED)

    def _kappa(self, problem: Problem, alike: bool) -> float:
        if self.hidden_noise is not None:
            return self.hidden_noise
        if problem.channel.outcomes != 2:
            return 100.0
        return 4.0 if alike else 1.0

    def _mean(
        self,
        problem: Problem,
        y: Tensor,
        prior: Denoiser,
        generator: Generators,
        data: RenoisingModule,
    ) -> Generator[State, None, Tensor]:
        """One walk down the grid to the posterior mean ``(B, *shape)``."""
        faint = has_faint_scale(problem)
        end = 1.0 if problem.channel.outcomes == 2 else 0.25  # of the noise of what is seen best
        kappa = self._kappa(problem, data.alike)
        x = zeros_for(problem, y)
        level = x.new_full((len(y),), highest(prior))
        for left in range(self.levels, 0, -1):
            if left < self.levels:
                last = (end * data.finest().sqrt()).clamp(min=LOWEST).minimum(level)
                level = level * (last / level) ** (1 / left)
            r = data.renoise(x, level, kappa, generator)
            x = prior.clip(prior.denoise(r, level))
            if faint:  # bits alone do not stop the contrast from growing
                energy = x.flatten(1).square().mean(1) / prior.mean_square
                x = x / column(energy.clamp(min=1).sqrt(), x)
            data.receive(x, r, level)
            x_end = prior.clip(data.completed(x, level, last=left == 1))
            yield State(level, x_end)
        return x_end

    def _sample(
        self, prior: Denoiser, generator: Generators, data: RenoisingModule, number: int
    ) -> Generator[State, None, Tensor]:
        """One posterior sample ``(B, *shape)``.

        Args:
            data: the measurement half, fresh.
            number: of the walk, for its states.
        """
        high = highest(prior)
        r = data.posterior_start(high, generator)
        grid = log_grid(LOWEST, high, self.levels)[::-1] if self.levels > 1 else [high]
        conditioned = ConditionedDenoiser(prior, data, high)
        for step in walk(conditioned, r, [*grid, 0.0], generator, order=ORDER):
            r = step.x
            yield State(step.sigma, step.clean, walk=number)
        return prior.clip(r)


def highest(prior: Denoiser) -> float:
    """The noise level that a walk starts from.

    What spans L×L pixels is a coefficient of an orthonormal basis of standard deviation L, about.
    Noise of level σ hides it only if σ is of that size, and while it is not hidden, each answer
    repeats what the last one held there: inside a large hole the image 0 that the walk starts from.
    So the level grows with the side of the images. Smaller images than 64×64 start as those do.
    """
    side = math.sqrt(math.prod(prior.shape[1:3])) if len(prior.shape) == 3 else 1.0
    return min(HIGHEST * max(side / SIDE, 1.0), prior.sigma_max)


def module_for(problem: Problem, y: Tensor, prior: Denoiser) -> RenoisingModule:
    """The measurement half for what is known of the operator."""
    operator = problem.operator
    known = isinstance(operator.gram, ScaledIdentity) or operator.has_spectrum
    kind = DirectionsModule if known else ConjugateGradientModule
    return kind(problem, y, prior.mean_square)
