"""Intervals with a guarantee, by a factor that is fitted on held-out images.

The risk of an image is the share of its entries in doubt that lie outside their intervals. In doubt
is what the measurements leave less certain than 8 bits are: pixels that were measured without noise
would count as covered, and hide how the others fare. A wider interval has a smaller risk. So the
smallest factor with

    (Σ min(risk_i, b) + b)/(n + 1) ≤ α,   α = 1 − level,

has E min(risk, b) ≤ α on average over the n held-out images and the next one (conformal risk
control, Angelopoulos, Bates, Fisch, Lei, Schuster 2024, Theorem 1). Who has one set of held-out
images, and wants to be sure of it, gives a δ. The factors are then tried from the largest
downwards, each tested on the same images without correction for their number (risk-controlling
prediction sets, Bates et al. 2021; Angelopoulos et al. 2022):

    with probability 1 − δ over the held-out images,   E min(risk, b) ≤ α.

The test is a bet (Waudby-Smith and Ramdas 2024). Were the mean risk above α, nobody could expect to
gain by staking a share of a capital of 1 on each image, chosen before its risk is seen:

    K_i = K_{i−1} (1 + λ_i (α − risk_i)),   P(max_i K_i ≥ 1/δ) ≤ δ,

with λ_i = √(2 log(1/δ) / (n σ̂²)), where σ̂² is the variance of the risks before i, and at most
¾/(b − α). The bound is sharp where risks are alike, and b limits how sharp: n images cannot exclude
that one in n has a risk of b. If all have the same risk, a guarantee of 90 % takes a coverage of
97 % on 40 images and of 91.4 % on 200 where b = 1, and of 91.6 % and 90.4 % where b = 3 α, the
default. Then a failed image counts as if 70 % of its entries were covered.

One factor makes the average right, and may leave a hidden region too narrow and the rest too wide.
With ``groups`` the entries are put into as many groups of equal size by their standard deviation,
and each group gets a factor of its own with the same guarantee (Mondrian conformal prediction, Vovk
et al. 2005, Section 4.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, check_generators, default_generator
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import are_counts, is_number
from diffsplit.solvers.intervals import StepFactor, check_level, factor_at, rounding
from diffsplit.solvers.recovery import Recovery
from diffsplit.solvers.sampling import SamplingSolver

__all__ = ["calibrate", "coverage"]

FACTORS = torch.logspace(-1, 1.5, 501, dtype=torch.float64)
"""What the factor is chosen from, in steps of 1.2 %."""

ROUNDING = 1e-9
"""By which a mean that should equal α may exceed it."""
LARGEST_STAKE = 0.75
"""Of the capital, so that one image with a risk of b leaves a quarter of it."""

S = TypeVar("S", bound=SamplingSolver)


@torch.no_grad()
def calibrate(
    solver: S,
    problem: Problem,
    prior: Denoiser,
    images: Tensor,
    *,
    level: float = 0.9,
    delta: float | None = None,
    largest_risk: float | None = None,
    groups: int = 1,
    generator: Generators | None = None,
    batch: int = 8,
    callback: Callable[[int, int], None] | None = None,
) -> S:
    """The solver with the smallest `interval_factor` that is guaranteed to cover.

    The images are measured, recovered, and compared with their intervals. What is guaranteed holds
    for images of their kind, measured by this problem and recovered by this solver.

    Args:
        solver: draws two samples or more, such as ``DiffEP(samples=8)``.
        images: ``(n, *shape)``, independent, and none that the prior was trained on.
        level: share of the entries in doubt that intervals are to hold.
        delta: δ, the probability with which the guarantee may fail for these images; such as 0.1.
            None stands for a guarantee on average over such sets of images, which makes intervals
            narrower: with 40 images they cover about 90.5 % instead of 92 % at a level of 90 %.
        largest_risk: b in (1 − level, 1], the most that an image counts with; None stands for
            3 (1 − level), or 1 if that is less. 1 counts every image in full.
        groups: of entries by standard deviation, each with a factor of its own; 8 serve a problem
            that shows some regions well and hides others, such as a hole.
        generator: of the measurements and the solver; a sequence of n gives each image its own.
        batch: images that are recovered at once.
        callback: called with the number of images done, and n, after each batch.

    Raises:
        InputError: a parameter is out of range, the images are too few for the guarantee, or no
            factor reaches it.
    """
    _check(solver, images, batch)
    if not are_counts(groups):
        raise InputError(f"groups is a whole number from 1 up, not {groups!r:.40}.")
    check_level(level)
    if delta is not None and not (is_number(delta, 0) and 0 < delta < 1):
        raise InputError(
            f"delta is None or lies between 0 and 1, such as 0.1; it is not {delta!r:.40}."
        )
    allowed = 1 - level
    largest = min(1.0, 3 * allowed) if largest_risk is None else largest_risk
    if not is_number(largest, 0) or not allowed < largest <= 1:
        raise InputError(
            f"largest_risk lies above 1 − level = {allowed:.3g} and is at most 1, not {largest!r}."
        )
    count, needed = len(images), _images_needed(level, delta, largest)
    if count < needed:
        raise InputError(
            f"a guarantee at level {level} and delta {delta} takes {needed} images or more, and "
            f"{count} {'was' if count == 1 else 'were'} given; some hundred make them narrower."
        )
    generator = default_generator() if generator is None else generator
    check_generators(generator, count)
    doubts: list[Doubt] = []
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        source = generator if isinstance(generator, torch.Generator) else generator[part]
        x = images[part]
        y = problem.measure(x, generator=source)
        doubts += _doubts(solver(problem, y, prior, generator=source), x, level)
        if callback is not None:
            callback(min(start + batch, count), count)
    edges = _edges(doubts, groups)
    factors = []
    for group in range(len(edges) + 1):
        risks = torch.stack([_risks(doubt) for doubt in _members(doubts, edges, group)])
        safe = _controlled(risks, allowed, delta, largest)
        if not safe[-1]:
            raise InputError(
                f"no factor up to {FACTORS[-1]:.0f} is sure to cover {level:.0%} on "
                f"{len(risks)} images; give more of them, draw more samples, or ask for a lower "
                "level or fewer groups."
            )
        smallest = len(FACTORS) - int(safe.flip(0).long().cumprod(0).sum())
        factors.append(float(FACTORS[smallest]))
    factor = StepFactor(edges, tuple(factors)) if edges else factors[0]
    return replace(solver, interval_factor=factor)


def coverage(result: Recovery, images: Tensor, level: float = 0.9) -> Tensor:
    """Share of the entries in doubt inside the intervals of a recovery, per image: ``(B,)``.

    An image without such an entry has a coverage of 1.

    Args:
        images: the true ones ``(B, *shape)``.

    Raises:
        InputError: there are fewer than two samples, ``level`` is not between 0 and 1, or the
            images are not those of the recovery.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise InputError("the true images are a tensor of floats on [-1, 1]; convert them.")
    if images.shape != result.image.shape:
        raise InputError(
            f"true images of shape {tuple(result.image.shape)} were expected, not "
            f"{tuple(images.shape)}; give those that were measured."
        )
    shares = [
        (needed <= factor_at(result.interval_factor, std)).double().mean()
        for std, needed in _doubts(result, images, level)
    ]
    return torch.stack(shares).nan_to_num(nan=1.0)


def _images_needed(level: float, delta: float | None, largest_risk: float) -> int:
    """The fewest images that can guarantee anything: as many as if none of them had a risk."""
    most = 1
    while not _controlled(torch.zeros(most, 1), 1 - level, delta, largest_risk):
        most *= 2
    least = most // 2  # too few
    while most - least > 1:
        middle = (least + most) // 2
        if _controlled(torch.zeros(middle, 1), 1 - level, delta, largest_risk):
            most = middle
        else:
            least = middle
    return most


class Doubt(NamedTuple):
    """The entries of one image whose interval at a factor of 1 is wider than the least.

    Attributes:
        std: their standard deviations ``(n,)``.
        needed: the factor from which on the interval of each holds the truth ``(n,)``.
    """

    std: Tensor
    needed: Tensor


def _doubts(result: Recovery, images: Tensor, level: float) -> list[Doubt]:
    """What each image of a recovery leaves in doubt."""
    half, least = result.half_width(level).cpu().double(), rounding(result.bounds)
    assert result.std is not None  # half_width saw to it
    std = result.std.cpu().double()
    distance = (images.to(half) - result.image.to(half)).abs()
    needed, doubtful = torch.where(distance <= least, 0, distance / half), half > least
    return [Doubt(s[d], n[d]) for s, n, d in zip(std, needed, doubtful, strict=True)]


def _edges(doubts: list[Doubt], groups: int) -> tuple[float, ...]:
    """The standard deviations that split all entries in doubt into groups of equal size."""
    every = torch.cat([doubt.std for doubt in doubts]).sort().values
    if not len(every):
        return ()
    return tuple(float(every[len(every) * i // groups]) for i in range(1, groups))


def _members(doubts: list[Doubt], edges: tuple[float, ...], group: int) -> list[Doubt]:
    """The entries of one group, of each image that has any; of all images if it is the only one."""
    if not edges:
        return doubts
    at = torch.tensor(edges, dtype=torch.float64)
    chosen = ((doubt, torch.bucketize(doubt.std, at) == group) for doubt in doubts)
    return [Doubt(d.std[mask], d.needed[mask]) for d, mask in chosen if bool(mask.any())]


def _risks(doubt: Doubt) -> Tensor:
    """The share of some entries outside their intervals, for each of `FACTORS`."""
    if not len(doubt.needed):
        return torch.zeros_like(FACTORS)
    inside = torch.searchsorted(doubt.needed.sort().values, FACTORS, right=True)
    return 1 - inside / len(doubt.needed)


def _controlled(risks: Tensor, allowed: float, delta: float | None, largest: float) -> Tensor:
    """Whether the mean counts as at most ``allowed``, per column of risks ``(n, F)``: ``(F,)``.

    Args:
        largest: b; larger risks count as b.
    """
    risks = risks.double().clamp(max=largest)
    n = len(risks)
    if delta is None:
        return (risks.sum(0) + largest) / (n + 1) <= allowed + ROUNDING
    win = math.log(1 / delta)
    # Before the first risk one is imagined: at α, with a standard deviation of half of it.
    seen, guess = torch.arange(2, n + 2, dtype=torch.float64)[:, None], (allowed / 2) ** 2
    mean = (allowed + risks.cumsum(0)) / seen
    variance = (guess + (risks - mean).square().cumsum(0)) / seen
    before = torch.cat([torch.full_like(risks[:1], guess), variance[:-1]])
    stake = (2 * win / (n * before)).sqrt().clamp(max=LARGEST_STAKE / (largest - allowed))
    return (stake * (allowed - risks)).log1p().cumsum(0).amax(0) >= win


def _check(solver: SamplingSolver, images: Tensor, batch: int) -> None:
    if not isinstance(solver, SamplingSolver) or solver.draws < 2:
        raise InputError(
            "calibration is for solvers that draw two samples or more, such as DiffEP(samples=8), "
            f"not {type(solver).__name__} with {getattr(solver, 'samples', 'no')} samples."
        )
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2:
        raise InputError("calibration takes a batch of true images, a float tensor (n, *shape).")
    if not are_counts(batch):
        raise InputError(f"batch is a whole number from 1 up, not {batch!r:.40}.")
