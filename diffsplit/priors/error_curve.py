"""v(σ): how wrong a prior is at each noise level, measured once and interpolated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import check_generators
from diffsplit.priors.base import Denoiser
from diffsplit.priors.checks import (
    as_levels,
    check_batch,
    check_levels,
    checked_count,
    checked_number,
    checked_numbers,
)

__all__ = ["ErrorCurve", "log_grid", "measure_error"]


def log_grid(low: float, high: float, count: int) -> list[float]:
    """``count`` noise levels from ``low`` to ``high``, evenly spaced in log σ."""
    check_levels(low, high)
    if checked_count("count", count) < 2:
        raise InputError("a grid has 2 levels or more.")
    step = math.log(high / low) / (count - 1)
    return [low * math.exp(step * i) for i in range(count)]


@dataclass(frozen=True)
class ErrorCurve:
    """A table of mean squared errors per entry, interpolated in (log σ, log v).

    Attributes:
        sigma: noise levels, increasing.
        mse: the error measured at each, on images in [-1, 1].
    """

    sigma: tuple[float, ...]
    mse: tuple[float, ...]
    _tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        try:
            ok = len(self.sigma) == len(self.mse) >= 2
            ok = ok and all(0 < checked_number("", v) < math.inf for v in (*self.sigma, *self.mse))
            ok = ok and all(a < b for a, b in itertools.pairwise(self.sigma))
        except (TypeError, ValueError):
            ok = False
        if not ok:
            raise InputError(
                "an error curve needs two or more positive, increasing noise levels and a "
                "positive error for each; measure it again."
            )

    def __call__(self, sigma: float | Tensor) -> Tensor:
        """v(σ), shaped like ``sigma``; constant beyond the ends of the table."""
        sigma = as_levels(sigma)
        knots, values = self._table(sigma.dtype, sigma.device)
        x = sigma.log().clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
        left = right - 1
        weight = (x - knots[left]) / (knots[right] - knots[left])
        return torch.lerp(values[left], values[right], weight).exp()

    def _table(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """ln σ and ln v, copied to the device once: a copy would wait for it at every call."""
        if (dtype, device) not in self._tables:
            with torch.inference_mode(False):  # else they could never meet a gradient later
                self._tables[dtype, device] = (
                    torch.tensor(self.sigma, dtype=dtype, device=device).log(),
                    torch.tensor(self.mse, dtype=dtype, device=device).log(),
                )
        return self._tables[dtype, device]


@torch.no_grad()
def measure_error(
    prior: Denoiser,
    images: Tensor,
    sigmas: Sequence[float],
    generator: torch.Generator,
    batch: int = 64,
) -> ErrorCurve:
    """Denoise ``images`` at each level, clip to the prior's bounds, and average the squared error.

    Args:
        images: clean images ``(n, *shape)`` on [-1, 1] that the prior was not trained on.
        sigmas: increasing noise levels; see `log_grid`.

    Raises:
        InputError: an argument of another kind or shape, or an error that is not finite.
    """
    if not isinstance(prior, Denoiser):
        raise InputError(f"give a Denoiser to measure the error of, not {type(prior).__name__}.")
    check_batch(images, prior.shape)
    checked_count("the number of images", len(images))
    check_generators([generator], 1)
    sigmas = checked_numbers("noise levels", sigmas).flatten().tolist()
    errors = []
    for sigma in sigmas:
        total = 0.0
        for x in torch.split(images, batch):
            noise = torch.randn(x.shape, generator=generator, device=generator.device)
            noisy = x + sigma * noise.to(x)
            total += (prior.clip(prior.denoise(noisy, sigma)) - x).square().sum().item()
        errors.append(total / images.numel())
    return ErrorCurve(tuple(sigmas), tuple(errors))
