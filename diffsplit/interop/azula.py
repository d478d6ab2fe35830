"""azula: its denoisers as priors, and ours, with and without measurements, for its samplers.

azula denoises x_t = α_t x0 + σ_t n at a time t of [0, 1], with its noise schedule (α_t, σ_t). Here
that is x = x_t/α_t at the level σ = σ_t/α_t, which rises with t. Images are on [-1, 1] in both.
Source of the interface: Rozet et al., "azula", version 0.11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors import Denoiser, ErrorCurve
from diffsplit.priors.functional import CallablePrior
from diffsplit.problem import Problem
from diffsplit.solvers.spectral.conditioned import ConditionedDenoiser
from diffsplit.solvers.spectral.renoising import module_for

try:
    from azula.denoise import Denoiser as _Denoiser
    from azula.denoise import DiracPosterior, GaussianDenoiser, GaussianPosterior, Posterior
    from azula.noise import Schedule, VESchedule
except (ImportError, RuntimeError) as error:  # a torchvision of another PyTorch fails so
    raise MissingDependencyError(
        f"azula cannot be imported ({error}); install it with pip install 'diffsplit[azula]', and "
        "a torchvision that fits PyTorch."
    ) from error

__all__ = ["conditioned_to_azula", "denoiser_to_azula", "prior_from_azula"]

HALVINGS = 50
"""Of [0, 1], to find the time of a noise level: to the last digit of float64."""


def prior_from_azula(
    denoiser: Any,
    shape: Sequence[int],
    *,
    mean_square: float = 0.25,
    error: ErrorCurve | Callable[[float | Tensor], Tensor] | None = None,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> CallablePrior:
    """A denoiser of azula as a prior; its noise levels are those of its schedule.

    Args:
        denoiser: an ``azula.denoise.Denoiser`` of images on [-1, 1].
        shape: of an image ``(C, H, W)``.
        mean_square, error, bounds: see `CallablePrior`.

    Raises:
        InputError: no denoiser of azula, or see `CallablePrior`.
    """
    if not isinstance(denoiser, _Denoiser):
        raise InputError(
            f"an azula.denoise.Denoiser was expected, not {type(denoiser).__name__}; for any other "
            "function use priors.from_callable."
        )
    ends = _level(denoiser.schedule, torch.tensor([0.0, 1.0], dtype=torch.float64))
    return CallablePrior(
        _InSigma(denoiser).eval(),
        shape,
        sigma_min=float(ends[0]),
        sigma_max=float(ends[1]),
        mean_square=mean_square,
        error=error,
        bounds=bounds,
    )


def _level(schedule: Schedule, t: Tensor) -> Tensor:
    """σ_t/α_t, shaped like ``t``."""
    alpha, sigma = schedule(t)
    level: Tensor = sigma / alpha
    return level


class _InSigma(nn.Module):
    """A denoiser of azula as a function of x and σ."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser

    def _time(self, sigma: Tensor) -> Tensor:
        """The time of a level ``(B,)``, by bisection: the level rises with it."""
        target = sigma.double()
        t, width = torch.zeros_like(target), 1.0
        for _ in range(HALVINGS):
            width /= 2
            below = _level(self.denoiser.schedule, t + width) <= target
            t = torch.where(below, t + width, t)
        return t

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = self._time(sigma).to(x.dtype)
        alpha, _ = self.denoiser.schedule(t)
        x_t = alpha.view(-1, *(1,) * (x.ndim - 1)) * x
        if isinstance(self.denoiser, GaussianDenoiser):  # it takes one time for all images
            one_by_one = [self.denoiser(x_t[i : i + 1], t[i]).mean for i in range(len(t))]
            return torch.cat(one_by_one).to(x.dtype)
        mean: Tensor = self.denoiser(x_t, t).mean
        return mean.to(x.dtype)


class AzulaDenoiser(_Denoiser):  # type: ignore[misc]
    """A prior as a denoiser of azula, for its samplers and its guidance.

    Args:
        prior: a diffusion model.
        schedule: of azula; None for the variance-exploding one over the prior's noise levels.

    Raises:
        InputError: no diffusion model, or no schedule of azula.
    """

    def __init__(self, prior: Denoiser, schedule: Schedule | None = None) -> None:
        if not isinstance(prior, Denoiser):
            raise InputError(
                "a diffusion model is needed, such as load_prior('cats-64'), not "
                f"{type(prior).__name__}."
            )
        if schedule is not None and not isinstance(schedule, Schedule):
            raise InputError(
                f"a schedule is one of azula.noise, or None, not {type(schedule).__name__}."
            )
        super().__init__()
        self.prior = prior
        self.schedule = schedule or VESchedule(prior.sigma_min, prior.sigma_max)
        self.networks = nn.ModuleList(prior.networks)

    def _in_sigma(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t/α_t, and σ_t/α_t of each image ``(B,)``."""
        alpha, sigma = self.schedule(torch.as_tensor(t, device=x_t.device))
        column = alpha.to(x_t.dtype).reshape(-1, *(1,) * (x_t.ndim - 1))
        return x_t / column, (sigma / alpha).to(x_t.dtype).expand(len(x_t))

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Posterior:
        """A Gaussian of the mean E[x0 | x_t], with the prior's measured error for its variance.

        Where the error was never measured, it is a point at the mean.

        Args:
            x_t: ``(B, *shape)``.
            t: time in [0, 1], one or one per image ``(B,)``.
            kwargs: what azula gives to other denoisers; not used.
        """
        x, level = self._in_sigma(x_t, t)
        mean, error = self.prior.denoise(x, level), self.prior.error(level)
        if error is None:
            return DiracPosterior(mean)
        variance = error.to(mean).view(-1, *(1,) * (mean.ndim - 1))
        return GaussianPosterior(mean, variance.expand_as(mean))


denoiser_to_azula = AzulaDenoiser
"""The name that reads well: ``interop.denoiser_to_azula(prior)``."""


class AzulaConditioned(AzulaDenoiser):
    """E[x0 | x_t, y] as a denoiser of azula: its samplers then draw from the posterior.

    The pull of the measurements follows the sampler from level to level, see `ConditionedDenoiser`,
    so that one evaluation a step serves. With 60 steps and a Gaussian prior the samples have the
    posterior's mean to a quarter of its standard deviation or better. A call at the level of the
    first call, or above it, starts anew.

    Args:
        problem, y: what was measured, ``(B, *shape_out)``; the sampler walks B images.
        prior: of images of that shape.
        schedule: see `AzulaDenoiser`.

    Raises:
        InputError: ``y`` does not belong to the problem, or see `AzulaDenoiser`.
    """

    def __init__(
        self, problem: Problem, y: Tensor, prior: Denoiser, schedule: Schedule | None = None
    ) -> None:
        super().__init__(prior, schedule)
        if not isinstance(problem, Problem):
            raise InputError(f"a Problem comes first, not {type(problem).__name__}.")
        problem.check(y)
        if tuple(prior.shape) != tuple(problem.operator.shape_in):
            raise InputError(
                f"the prior knows images of shape {tuple(prior.shape)}, the measurements are of "
                f"{tuple(problem.operator.shape_in)}; load a prior of that size."
            )
        self.problem, self.y = problem, y
        self._first = torch.zeros(())
        self._walk: ConditionedDenoiser | None = None

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Posterior:
        """A point at E[x0 | x_t, y]; arguments as in `AzulaDenoiser`.

        Raises:
            InputError: another number of images than of measurements.
        """
        if len(x_t) != len(self.y):
            raise InputError(
                f"{len(x_t)} images for measurements of {len(self.y)}; the sampler walks one image "
                "for each."
            )
        x, level = self._in_sigma(x_t, t)
        # Waits for the device, but a second run with the pull of the first would be silently wrong.
        if self._walk is None or bool((level >= self._first).any()):
            module = module_for(self.problem, self.y, self.prior)
            self._walk, self._first = ConditionedDenoiser(self.prior, module, level), level
        return DiracPosterior(self._walk(x, level))


conditioned_to_azula = AzulaConditioned
"""The name that reads well: ``interop.conditioned_to_azula(problem, y, prior)``."""
