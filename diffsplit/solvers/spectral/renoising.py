"""Renoising: what message passing becomes where A sees some directions well and others not at all.

A blur, a mask or a down-sampling leaves an error that is not white, and a denoiser is made for
white noise. So the last answer x̂ is put into fresh noise, and the measurements enter as a pull
along the directions that A sees. With z the coordinates of D's answer there, an observation z̃ of
them in noise of variance ν (see `observation`), and σ on a falling grid,

    D's answer = D(x̂ + f σ ξ + σ² λ, σ),   λ ← λ + (z̃ − z − ν λ)/(ν + β σ²)
    x̂ ← the average of the last two answers,   β = 0.55, or 1.2 for bits

Each level is visited twice, the second time with −ξ, so that the average holds next to nothing of
the noise. For a Gaussian prior the fixed point is the posterior mean at every σ and f. A network is
another matter. With f = 0 it is asked about images without noise, which it has not seen: it takes
missing noise for missing detail, and the end of the walk is a mode, too smooth. With f = 1 inside a
large hole, where x̂ is blurred, it takes the blur for the image. f is the noise of a measurement
(see `measurement_noise`), at least ½ and at most 1.

Single bits with little noise do not tell the contrast of a picture (see `has_faint_scale`); there
D's answer is held to the mean square of the prior's images.

A posterior sample is plain reverse diffusion with the denoiser E[x0 | x_σ, y], the same with x_σ in
place of x̂ + f σ ξ, see `conditioned`, down to noise that cannot be seen. The variance of two
samples or more is the predicted error: what hidden directions leave open shows in nothing else.

Source: ours. Bendel et al. 2025 (DDfire) renoise, but whiten each direction by itself; opposite
noises are the antithetic variates of Monte Carlo.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import karras_grid
from diffsplit.solvers.base import Algorithm, are_counts, is_number
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.problem_facts import has_faint_scale, measurement_noise
from diffsplit.solvers.recovery import State
from diffsplit.solvers.reverse import walk
from diffsplit.solvers.sampling import SamplingSolver
from diffsplit.solvers.spectral.conditioned import ConditionedDenoiser
from diffsplit.solvers.spectral.conjugate_gradients import ConjugateGradientModule
from diffsplit.solvers.spectral.modules import DirectionsModule, RenoisingModule

__all__ = ["Renoising"]

HIGHEST = 2.0
"""Where walks start: above it, at 64×64 pixels, no detail survives."""
LOWEST, LAST = 0.03, 0.05
"""Where walks to a sample and to the mean end. Below the first no noise is to be seen."""
SIDE = 64
ORDER = 1.85
"""Of the reverse diffusion: with 2 the variance of a Gaussian's samples is 1 to 4 % too large."""
MORE = 4
"""Levels that a walk to a sample has beyond those of the mean. λ lags behind, the more so the
coarser the levels are: with 20 it leaves hidden pixels 8 % too much variance, with 24 less than 5.
"""
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
    conjugate gradients take its place: 60 to 125 applications of A Aᵀ a level, most without noise.

    Attributes:
        levels: denoiser evaluations of the walk to the mean, two at each of half as many noise
            levels.
        noise: f, the share of the level in fresh noise, from 0 to 1; None chooses it by the
            problem, see above.
        sample_steps: denoiser evaluations of a walk to one sample; None takes four more than
            ``levels``.
        output, samples: see `SamplingSolver`.
    """

    levels: int = 20
    noise: float | None = None

    step_fields: ClassVar[tuple[str, ...]] = ("levels",)

    def __post_init__(self) -> None:
        if not are_counts(self.levels):
            raise InputError(f"levels is a whole number from 1 up, not {self.levels!r}.")
        super().__post_init__()
        if self.noise is not None and not (is_number(self.noise, 0) and self.noise <= 1):
            raise InputError(f"noise is a number from 0 to 1 or None, not {self.noise!r:.40}.")

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
        if self.sampler is not None:
            raise InputError(
                "where A leaves an uneven error, samples take the diffusion model itself; leave "
                "out the sampler, which serves random operators."
            )

    @property
    def steps_per_sample(self) -> int:
        own = self.sample_steps is None and self.sampler is None
        return self.levels + MORE if own else super().steps_per_sample

    def steps_at_most(self, problem: Problem) -> int:
        return self.levels * (self.output == "mean") + self.steps_per_sample * self.draws

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

    def _share(self, problem: Problem) -> float:
        """f."""
        if self.noise is not None:
            return self.noise
        return min(max(0.5, measurement_noise(problem)), 1.0)

    def _mean(
        self,
        problem: Problem,
        y: Tensor,
        prior: Denoiser,
        generator: Generators,
        data: RenoisingModule,
    ) -> Generator[State, None, Tensor]:
        """One walk down the grid to the posterior mean ``(B, *shape)``."""
        faint, share = has_faint_scale(problem), self._share(problem)
        high = highest(prior)
        conditioned = ConditionedDenoiser(prior, data, high)
        x = data.first()
        xi = before = x
        # Single bits tell nothing below their own noise.
        end = 1.0 if problem.channel.outcomes == 2 else 0.25
        last = (end * data.finest().sqrt()).clamp(LAST, high)
        pairs = (self.levels + 1) // 2
        for step in range(self.levels):
            place = (step + self.levels % 2) // 2
            level = high * (last / high) ** (place / max(pairs - 1, 1))
            fresh = step == 0 or (self.levels - step) % 2 == 0
            xi = randn_like(x, generator) if fresh else -xi
            answer = conditioned(x + share * column(level, x) * xi, level)
            if faint:  # bits alone do not stop the contrast from growing
                energy = answer.flatten(1).square().mean(1) / prior.mean_square
                answer = answer / column(energy.clamp(min=1).sqrt(), x)
            x = answer if step == 0 else (before + answer) / 2
            before = answer
            yield State(level, x)
        return x

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
        grid = karras_grid(self.steps_per_sample, high, LOWEST)
        conditioned = ConditionedDenoiser(prior, data, high)
        for step in walk(conditioned, r, grid, generator, order=ORDER):
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
