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

import torch
from torch import Tensor

from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.noise import Generators, randn_like
from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.operators.spectra import SelectedRows
from diffsplit.operators.spectrum import Spectrum
from diffsplit.priors.base import Prior
from diffsplit.priors.error_curve import log_grid
from diffsplit.problem import Problem
from diffsplit.solvers.base import Watch, zeros_for
from diffsplit.solvers.message_passing.divergence import denoiser_error
from diffsplit.solvers.reverse import reverse_diffusion

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
    gaussian = isinstance(problem.channel, GaussianNoise)
    return gaussian and operator.has_spectrum and not (random or orthogonal)


def renoised(
    problem: Problem, y: Tensor, prior: Prior, generator: Generators, watch: Watch, steps: int
) -> Tensor:
    """One walk down the grid: ``(B, *shape)`` after ``steps`` network evaluations."""
    assert isinstance(problem.channel, GaussianNoise)
    data = _DataStep(problem.operator.spectrum(), y, max(problem.channel.sigma, NOISE_FLOOR))
    spectrum = data.spectrum
    calm = torch.where(data.seen, 1.0, CALM if isinstance(spectrum, SelectedRows) else 1.0)
    x, t = zeros_for(y, prior), y.new_full((len(y),), prior.mean_square)
    c, e = data(spectrum.analyze(x), t, t)
    for level in _grid(data, prior, steps):
        sigma = torch.full_like(t, level)
        noise = (level**2 - calm * e).clamp(min=0).sqrt() * randn_like(c, generator)
        c, e = _corrected(data, prior, spectrum.synthesize(c + noise), sigma, generator)
        x = prior.clip(spectrum.synthesize(c))
        watch(sigma, x, problem.operator.apply(x))
    return x


def renoised_sample(
    problem: Problem, y: Tensor, prior: Prior, generator: Generators, watch: Watch, steps: int
) -> Tensor:
    """One posterior sample: ``(B, *shape)`` after ``steps`` network evaluations."""
    assert isinstance(problem.channel, GaussianNoise)
    data = _DataStep(problem.operator.spectrum(), y, max(problem.channel.sigma, NOISE_FLOOR))
    x, t = zeros_for(y, prior), y.new_full((len(y),), prior.mean_square)
    c, e = data(data.spectrum.analyze(x), t, t)
    grid = _grid(data, prior, steps)
    start = c + (grid[0] ** 2 + e).sqrt() * randn_like(c, generator)
    denoiser = _Conditioned(problem, prior, data, generator, watch)
    x = data.spectrum.synthesize(start)
    return prior.clip(reverse_diffusion(denoiser, x, [*grid, 0.0], generator, order=2))


class _Conditioned(Prior):
    """The denoiser E[x0 | x_σ, y]: a prior's answer, and then the measurements'."""

    def __init__(
        self, problem: Problem, prior: Prior, data: _DataStep, generator: Generators, watch: Watch
    ) -> None:
        self.problem, self.prior, self.data = problem, prior, data
        self.generator, self.watch = generator, watch
        self.shape, self.bounds = prior.shape, prior.bounds
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        c, _ = _corrected(self.data, self.prior, x, sigma, self.generator)
        x = self.prior.clip(self.data.spectrum.synthesize(c))
        self.watch(sigma, x, self.problem.operator.apply(x))
        return x


def _corrected(
    data: _DataStep, prior: Prior, r: Tensor, sigma: Tensor, generator: Generators
) -> tuple[Tensor, Tensor]:
    """The denoised image in the spectrum after the data, and its error variance."""
    x = prior.clip(prior.denoise(r, sigma))
    error = prior.error(sigma)
    t = denoiser_error(prior, r, sigma, x, generator) if error is None else error
    return data(data.spectrum.analyze(x), t, sigma.square())


class _DataStep:
    """c ↦ the posterior mean given the measurements, and its variance, per direction."""

    def __init__(self, spectrum: Spectrum, y: Tensor, noise: float) -> None:
        self.spectrum, self.noise = spectrum, noise**2
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


def _grid(data: _DataStep, prior: Prior, steps: int) -> list[float]:
    """Levels from `HIGHEST` down to where measurements of this noise have nothing left to say.

    At half of σ_y/s_max even the direction that A shows best is known better from the prior.
    """
    high = min(HIGHEST, prior.sigma_max)
    end = data.noise**0.5 / (2 * float(data.s.max()))
    low = min(max(end, LOWEST, prior.sigma_min), high)
    return log_grid(high, low, steps) if steps > 1 and low < high else [high] * steps
