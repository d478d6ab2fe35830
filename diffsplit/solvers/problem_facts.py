"""What a problem is like: how much a measurement says, and how the error it leaves is spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, max_pool2d

from diffsplit.noise import randn_like, seeded
from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.problem import Problem

__all__ = [
    "MEAN_SQUARE",
    "NOISE_FLOOR",
    "has_faint_scale",
    "has_random_rows",
    "is_scattered",
    "leaves_white_errors",
]

MEAN_SQUARE = 0.25
"""Of natural images on [-1, 1]."""
NOISE_FLOOR = 1e-3
"""Stands for σ_y = 0: a quarter of the rounding error of an 8-bit image."""
PROBES = 1000

LITTLE_NOISE, MUCH_NOISE = 0.6, 1.6
"""In a measurement, beside what the pixels of images vary by, 0.5."""


def has_random_rows(problem: Problem) -> bool:
    """Whether A is random, so that errors look white whatever the image."""
    return isinstance(problem.operator.gram, IIDRows | RandomRows)


def measurement_noise(problem: Problem) -> float:
    """Standard deviation of one measurement, read as an observation in Gaussian noise, over √c.

    It is √(1/h̄ − τ) for s ~ N(0, τ) with the mean square of natural images behind it, and σ for
    Gaussian noise. One bit gives 0.38 without noise and 0.73 with σ = 0.5.
    """
    channel, c = problem.channel, problem.operator.gram.mean
    if channel.gaussian_sigma is not None:
        return channel.gaussian_sigma / math.sqrt(c)
    tau, generator = MEAN_SQUARE * c, seeded(0, "measurement_noise")
    s = math.sqrt(tau) * randn_like(torch.empty(1, PROBES, dtype=torch.float64), generator)
    y = channel.sample(s, generator)
    _, h = channel.evidence_score(torch.zeros_like(s), y, tau)
    return math.sqrt(max(1 / float(h.mean()) - tau, 0.0) / c)


def has_faint_scale(problem: Problem) -> bool:
    """Whether single bits have so little noise that they hardly tell the scale of an image."""
    return problem.channel.outcomes == 2 and measurement_noise(problem) < LITTLE_NOISE


def leaves_white_errors(problem: Problem) -> bool:
    """Whether orthogonal rows that are not random leave an error that is white all the same.

    It is so where single measurements say little beside what their neighbors say: with much noise,
    or with some where every hidden pixel has a seen neighbor (half of the pixels at random, but not
    a box). One bit at σ = 0.5 is some noise, the logistic channel much.
    """
    operator, channel = problem.operator, problem.channel
    if not isinstance(operator.gram, ScaledIdentity):
        return False
    if operator.size_out == operator.size_in and (channel.outcomes or 0) <= 2:
        return True
    if channel.gaussian_sigma is not None:
        return False
    noise = measurement_noise(problem)
    return noise > MUCH_NOISE or (noise > LITTLE_NOISE and is_scattered(operator.pixels))


def is_scattered(pixels: Tensor | None) -> bool:
    """Whether nine in ten hidden pixels, or entries of a signal, have a seen one beside them."""
    if pixels is None or pixels.ndim > 3:
        return False
    pool = max_pool1d if pixels.ndim == 1 else max_pool2d
    planes = pixels if pixels.ndim == 3 else pixels[None]
    near = (pool(planes.float(), 3, stride=1, padding=1) > 0).view_as(pixels)
    hidden = ~pixels
    return int((near & hidden).sum()) >= 0.9 * int(hidden.sum())
