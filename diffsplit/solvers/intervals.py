"""From posterior samples to the standard deviation and the interval of each entry.

S samples give each entry a variance with S − 1 degrees of freedom. In an image it is averaged with
the variance of the 3×3 pixels around, which counts like that of 16 samples more; on cats this makes
intervals of 8 samples 6 % narrower at the same coverage. Samples say too little of the scale: the
network's own error is missing from them. So the variance is scaled, image by image, until its mean
is the mean squared error that the solver found. The interval around the posterior mean is as wide
as Student's distribution with S − 1 degrees of freedom asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from diffsplit.arguments import TINY, is_number
from diffsplit.errors import InputError

__all__ = [
    "Factor",
    "StepFactor",
    "calibrated_std",
    "check_factor",
    "check_level",
    "factor_at",
    "rounding",
    "student_quantile",
]

NEIGHBORS = 16
"""How many samples the variance around an entry counts for."""


@dataclass(frozen=True)
class StepFactor:
    """A factor for each range of standard deviations, since samples err by more where they vary.

    Attributes:
        edges: G − 1 rising standard deviations between the ranges.
        factors: G factors, of the smallest deviations first.

    Raises:
        InputError: there is not one factor more than edges, the edges fall, or one is not above 0.
    """

    edges: tuple[float, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = all(is_number(value, TINY) for value in (*self.edges, *self.factors))
        rising = list(self.edges) == sorted(self.edges)
        if not numbers or not rising or len(self.factors) != len(self.edges) + 1:
            raise InputError(
                "a StepFactor has rising edges above 0 and one factor above 0 more than edges, "
                f"not {self.edges!r:.60} and {self.factors!r:.60}."
            )


Factor = float | StepFactor
"""By which intervals are widened: the same everywhere, or by standard deviation."""


def check_factor(factor: object) -> None:
    """Raise InputError unless ``factor`` is a `Factor`, above 0."""
    if not isinstance(factor, StepFactor) and not is_number(factor, TINY):
        raise InputError(f"interval_factor is a number above 0, not {factor!r:.40}.")


def factor_at(factor: Factor, std: Tensor) -> float | Tensor:
    """The factor of each entry, shaped like the standard deviations ``std``."""
    if not isinstance(factor, StepFactor):
        return factor
    edges = torch.tensor(factor.edges, dtype=std.dtype, device=std.device)
    factors = torch.tensor(factor.factors, dtype=std.dtype, device=std.device)
    return factors[torch.bucketize(std, edges)]


def calibrated_std(samples: Tensor, error: Tensor | None, least: float = 0.0) -> Tensor:
    """Standard deviation per entry ``(B, *shape)``.

    Args:
        samples: ``(S, B, *shape)``, S ≥ 2.
        error: the mean squared error per entry of each image ``(B,)``, which the mean of the
            squared standard deviation becomes; None leaves it as the samples say.
        least: entries with a smaller deviation were measured, and are left out of the averages.
    """
    variance = samples.var(0)
    if variance.ndim == 4:
        variance = _averaged(variance, len(samples), least)
    if error is not None:
        mean = variance.flatten(1).mean(1).clamp(min=1e-30)
        variance = variance * (error / mean).view(-1, *(1,) * (variance.ndim - 1))
    return variance.sqrt()


def _averaged(variance: Tensor, samples: int, least: float) -> Tensor:
    """Variances ``(B, C, H, W)``, averaged with those around of the same channel."""
    unknown = (variance > least**2).to(variance)
    share = avg_pool2d(unknown, 3, 1, 1)
    around = avg_pool2d(unknown * variance, 3, 1, 1) / share.clamp(min=1e-3)
    own = samples - 1
    mixed = (own * variance + NEIGHBORS * around) / (own + NEIGHBORS)
    return mixed.where(unknown > 0, variance)


def rounding(bounds: tuple[float, float] | None) -> float:
    """Half of one of the 255 steps of a range: no 8-bit image is known better. 0 without a range.

    An interval is at least that far to both sides, since entries that were measured without noise
    have a standard deviation near 0.
    """
    return 0.0 if bounds is None else (bounds[1] - bounds[0]) / 510


def check_level(level: object) -> None:
    """Raise InputError unless ``level`` is a share between 0 and 1, without the ends."""
    if isinstance(level, bool) or not isinstance(level, float) or not 0 < level < 1:
        raise InputError(f"a level lies between 0 and 1, such as 0.9; it is not {level!r:.40}.")


def student_quantile(level: float, freedom: int) -> float:
    """t with P(|T| ≤ t) = ``level`` for Student's T, by bisection of its distribution.

    Args:
        freedom: ν ≥ 1, degrees of freedom.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _share_within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """P(|T| ≤ √ν tan θ): a finite series (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd, square = freedom % 2, math.cos(angle) ** 2
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for j in range(freedom // 2):
        total += term
        term *= square * (2 * j + 1 + odd) / (2 * j + 2 + odd)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
