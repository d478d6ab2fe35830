"""Renoising: message passing for Gaussian noise where A = U diag(s) Vᵀ is known.

A blur, a mask or a down-sampling leaves an error that is not white. With an estimate of error
variance v and measurements of noise σ_y, the error along a singular direction after the data is

    e(s) = v σ_y²/(σ_y² + v s²),   v itself where s = 0.

Noise of variance (σ² − e(s))₊ along each direction makes the whole error white at the next level σ
of a falling grid, and so again what the denoiser was trained on. In coefficients c = Vᵀx̂, ŷ = Uᵀy:

    c ← c + w s/(σ_y² + w s²) (ŷ − s c)               posterior after the data
    r = V (c + √(σ² − e)₊ ξ),   x̂ = D(r, σ),   v = v(σ),   c = Vᵀx̂

The denoiser's error is larger than its mean v where A looks (it measures what images have most of),
so in the range of A its variance w is read off the residual, E(ŷ − s c)² = s² w + σ_y², one number
per image. Measured on cats at σ_y = 0.05 this is worth 1.2 dB (×4) and 0.8 dB (blur).

Source: Bendel et al. 2025 (DDfire) for renoising along the spectrum; the residual estimate is ours.

The walk leads to the posterior mean: fresh noise at every level forgets which of the likely images
the last one was heading for. A posterior sample keeps to one: it is plain reverse diffusion with
the denoiser E[x0 | x_σ, y] that the same data step makes of D.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.operators.spectrum import Spectrum
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import log_grid
from diffsplit.problem import Problem
from diffsplit.solvers.base import zeros_for
from diffsplit.solvers.message_passing.divergence import denoiser_error
from diffsplit.solvers.recovery import State
from diffsplit.solvers.reverse import walk

__all__ = ["renoised", "renoised_sample", "renoises"]

NOISE_FLOOR = 1e-3
"""Stands for σ_y = 0: a quarter of the rounding error of an 8-bit image."""

CALM = 4.0
"""In pixels that a mask hides, the error counts so many times: less fresh noise makes the walk less
of a sample, and more of a mean. On ten cats that is worth 0.4 dB (box) and 0.6 to 0.8 dB (half of
the pixels). Where whole frequencies are hidden it would leave a texture behind."""

HIGHEST, LOWEST = 2.0, 0.03
"""Ends of the grid: above the first no detail survives, below the second none is to be seen."""


def renoises(problem: Problem) -> bool:
    """Whether renoising is the method: Gaussian noise, and an error that A makes uneven.

    Random rows and an orthogonal A (denoising) leave white errors: there messages pass faster.
    """
    operator, gram = problem.operator, problem.operator.gram
    random = isinstance(gram, (IIDRows, RandomRows))
    orthogonal = isinstance(gram, ScaledIdentity) and operator.size_out == operator.size_in
    gaussian = problem.channel.gaussian_sigma is not None
    return gaussian and operator.has_spectrum and not (random or orthogonal)


def renoised(
    problem: Problem, y: Tensor, prior: Denoiser, generator: Generators, steps: int
) -> Generator[State, None, Tensor]:
    """One walk down the grid: ``(B, *shape)`` after ``steps`` network evaluations."""
    data = _DataStep(problem, y)
    calm = torch.where(data.seen, 1.0, CALM if problem.operator.pixels is not None else 1.0)
    x, t = zeros_for(problem, y), y.new_full((len(y),), prior.mean_square)
    c, e = data(data.spectrum.analyze(x), t, t)
    for level in _grid(data, prior, steps):
        sigma = torch.full_like(t, level)
        noise = (level**2 - calm * e).clamp(min=0).sqrt() * randn_like(c, generator)
        c, e = _corrected(data, prior, data.spectrum.synthesize(c + noise), sigma, generator)
        x = prior.clip(data.spectrum.synthesize(c))
        yield State(sigma, x)
    return x


def renoised_sample(
    problem: Problem,
    y: Tensor,
    prior: Denoiser,
    generator: Generators,
    steps: int,
    number: int,
) -> Generator[State, None, Tensor]:
    """One posterior sample: ``(B, *shape)`` after ``steps`` network evaluations.

    Args:
        number: of the walk, for its states.
    """
    data = _DataStep(problem, y)
    x, t = zeros_for(problem, y), y.new_full((len(y),), prior.mean_square)
    c, e = data(data.spectrum.analyze(x), t, t)
    grid = _grid(data, prior, steps)
    start = c + (grid[0] ** 2 + e).sqrt() * randn_like(c, generator)

    def conditioned(x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x_σ, y]: the prior's answer, and then the measurements'."""
        level = sigma.expand(len(x))
        c, _ = _corrected(data, prior, x, level, generator)
        return prior.clip(data.spectrum.synthesize(c))

    x = data.spectrum.synthesize(start)
    for step in walk(conditioned, x, [*grid, 0.0], generator, order=2):
        x = step.x
        yield State(step.sigma, step.clean, walk=number)
    return prior.clip(x)


def _corrected(
    data: _DataStep, prior: Denoiser, r: Tensor, sigma: Tensor, generator: Generators
) -> tuple[Tensor, Tensor]:
    """The denoised image in the spectrum after the data, and its error variance."""
    x = prior.clip(prior.denoise(r, sigma))
    error = prior.error(sigma)
    t = denoiser_error(prior, r, sigma, x, generator) if error is None else error
    return data(data.spectrum.analyze(x), t, sigma.square())


class _DataStep:
    """c ↦ the posterior mean given the measurements, and its variance, per direction."""

    def __init__(self, problem: Problem, y: Tensor) -> None:
        self.spectrum: Spectrum = problem.operator.spectrum()
        spectrum = self.spectrum
        self.noise = max(problem.channel.gaussian_sigma or 0.0, NOISE_FLOOR) ** 2
        self.y = spectrum.analyze_measurement(y if y.is_floating_point() else y.float())
        s = spectrum.singular_values.to(self.y).expand(spectrum.shape)
        self.s, self.seen = s, s > 0
        self.column = (-1,) + (1,) * len(spectrum.shape)

    def __call__(self, c: Tensor, v: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """From error variance ``v`` per image, at most ``bound`` in any direction."""
        v, bound = v.view(self.column), bound.view(self.column)
        residual = self.y - self.s * c
        w = self._range_error(residual, v, bound)
        total = self.noise + w * self.s.square()
        posterior = c + w * self.s / total * residual
        return posterior, torch.where(self.seen, w * self.noise / total, v)

    def _range_error(self, residual: Tensor, v: Tensor, bound: Tensor) -> Tensor:
        """w from E residual² = s² w + σ_y², weighted as maximum likelihood does at w = v."""
        square = self.s.square()
        weight = square / (self.noise + v * square).square()
        dims = tuple(range(1, residual.ndim))
        excess = (weight * (residual.square() - self.noise)).sum(dims, keepdim=True)
        w = excess / (weight * square).sum(dims, keepdim=True)
        return torch.minimum(torch.maximum(w, 0.05 * v), torch.maximum(bound, v))


def _grid(data: _DataStep, prior: Denoiser, steps: int) -> list[float]:
    """Levels from `HIGHEST` down to where measurements of this noise have nothing left to say.

    At half of σ_y/s_max even the direction that A shows best is known better from the prior.
    """
    high = min(HIGHEST, prior.sigma_max)
    end = data.noise**0.5 / (2 * float(data.s.max()))
    low = min(max(end, LOWEST, prior.sigma_min), high)
    return log_grid(low, high, steps)[::-1] if steps > 1 and low < high else [high] * steps
