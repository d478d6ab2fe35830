"""Linear estimates in a line each: enlargement, filling, back-projection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffsplit.problem import Problem
from diffsplit.solvers.linear.base import LinearEstimate, as_numbers
from diffsplit.solvers.linear.wiener import Wiener
from diffsplit.solvers.problem_facts import MEAN_SQUARE

__all__ = ["BackProjection", "Bicubic", "MeanFill", "linear_baseline"]


@dataclass(frozen=True)
class Bicubic(LinearEstimate):
    """Bicubic enlargement of a reduced image."""

    accepts: ClassVar[str] = "reductions, any channel"

    @classmethod
    def suits(cls, problem: Problem) -> bool:
        stride = problem.operator.stride
        return stride is not None and stride > 1

    def _estimate(self, problem: Problem, y: Tensor) -> Tensor:
        operator, small = problem.operator, as_numbers(problem, y)
        # The operator's answer to a picture of ones is its gain, 1 for a plain reduction.
        gain = operator.apply(small.new_ones(1, *operator.shape_in))
        return interpolate(small / gain, operator.shape_in[1:], mode="bicubic")


@dataclass(frozen=True)
class MeanFill(LinearEstimate):
    """Measured pixels as they are, the others at the mean of each image and channel.

    A channel of which nothing is known becomes 0, the middle of [-1, 1].
    """

    accepts: ClassVar[str] = "masks, any channel"

    @classmethod
    def suits(cls, problem: Problem) -> bool:
        pixels = problem.operator.pixels
        return pixels is not None and pixels.ndim == 3 and not bool(pixels.all())

    def _estimate(self, problem: Problem, y: Tensor) -> Tensor:
        operator = problem.operator
        pixels = operator.pixels
        assert pixels is not None  # `check` saw to it
        known = operator.adjoint(as_numbers(problem, y)) / operator.gram.mean
        count = pixels.sum((1, 2), keepdim=True).clamp(min=1)
        return torch.where(pixels, known, known.sum((2, 3), keepdim=True) / count)


@dataclass(frozen=True)
class BackProjection(LinearEstimate):
    """Aᵀ y, with y read as numbers, scaled to the mean square of natural images.

    Bits carry no scale, and that of a general Aᵀ is arbitrary: each image gets E[x²] = 0.25.
    """

    @classmethod
    def suits(cls, problem: Problem) -> bool:
        return True

    def _estimate(self, problem: Problem, y: Tensor) -> Tensor:
        image = problem.operator.adjoint(as_numbers(problem, y))
        scale = image.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
        return math.sqrt(MEAN_SQUARE) * image / scale.view(-1, *(1,) * (image.ndim - 1))


def linear_baseline(problem: Problem) -> LinearEstimate:
    """The linear estimate that goes with a problem.

    `Bicubic` for a reduction, `MeanFill` where pixels are missing, `Wiener` for convolutions (the
    identity is one) in Gaussian noise, and `BackProjection` for everything else.
    """
    kinds: tuple[type[LinearEstimate], ...] = (Bicubic, MeanFill, Wiener, BackProjection)
    return next(kind for kind in kinds if kind.suits(problem))()
