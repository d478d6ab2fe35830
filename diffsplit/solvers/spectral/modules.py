"""The measurement half of a renoising walk, and the one that works along known directions.

The walk hands a module the denoiser's answer and asks what the measurements make of it. How they
pull depends on what is known of A: with a spectrum or orthogonal rows each direction is treated by
itself, as `renoising` describes; with A and Aᵀ alone a linear system is solved, see
`conjugate_gradients`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.problem import Problem
from diffsplit.solvers.base import zeros_for
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.spectral.observation import Observation, directions_of

__all__ = ["DirectionsModule", "RenoisingModule", "dual_step"]


def dual_step(problem: Problem) -> float:
    """The share of σ² in the step of λ: more than half, so that no direction overshoots.

    Bits are linearized anew at each level, and early linearizations are coarse: with small steps λ
    forgets them sooner.
    """
    return 0.55 if problem.channel.gaussian_sigma is not None else 1.2


class RenoisingModule(ABC):
    """What a renoising walk asks of the measurements.

    It starts from the image 0, whose error is the prior's mean square.

    Attributes:
        error: w, the error variance of the last estimate by the evidence ``(B,)``.
        unsolved: the most that a linear system of the walk left, as a share of its right side
            ``(B,)``; None where each direction is solved exactly.
    """

    error: Tensor
    unsolved: Tensor | None = None

    @abstractmethod
    def finest(self) -> Tensor:
        """The noise variance of the direction that is seen best ``(B,)``."""

    @abstractmethod
    def first(self) -> Tensor:
        """E[x0 | y] ``(B, *shape)`` for the prior N(0, w I), w the prior's mean square."""

    @abstractmethod
    def posterior_start(self, level: float, generator: Generators) -> Tensor:
        """Where a reverse walk to a sample starts ``(B, *shape)``.

        It is a draw from the posterior of the prior N(0, w I), w the prior's mean square, in fresh
        noise of ``level``.
        """

    @abstractmethod
    def pull(self) -> Tensor:
        """λ ``(B, *shape)``, the gradient of the log likelihood that a walk to a sample carries."""

    @abstractmethod
    def conditioned(self, x: Tensor, w: Tensor, level: Tensor) -> Tensor:
        """E[x0 | x_σ, y] ``(B, *shape)``, from the denoiser's answer to x_σ + σ² λ; λ moves on.

        Args:
            x: the answer, an estimate with white error.
            w: about its variance ``(B,)``; the evidence corrects it.
            level: σ ``(B,)``.
        """


class DirectionsModule(RenoisingModule):
    """The pull along the directions of `Directions`; the formulas are in `renoising`.

    Args:
        problem, y: what was measured.
        mean_square: of the prior's images.
    """

    def __init__(self, problem: Problem, y: Tensor, mean_square: float) -> None:
        self.seen, self.step = directions_of(problem, y), dual_step(problem)
        self.x = zeros_for(problem, y)
        self.z, w = self.seen.analyze(self.x), self.x.new_full((len(y),), mean_square)
        self.dual = torch.zeros_like(self.z)
        self.data = self.seen.observe(self.z, w, self.dual)
        self.start, self.error = w, self.data.w

    def finest(self) -> Tensor:
        return self.seen.finest(self.data)

    def first(self) -> Tensor:
        data, z = self.data, self.z
        return self.x + self.seen.lift(_gain(data, z) * (data.value - z))

    def posterior_start(self, level: float, generator: Generators) -> Tensor:
        seen, data, z, x = self.seen, self.data, self.z, self.x
        noise = randn_like(x, generator)
        along = seen.analyze(noise)
        # The error of the start, in the noise of the first level: e = w ν/(w + ν), w where hidden.
        left = (level**2 + _gain(data, z) * data.variance).sqrt() * along
        hidden = column((level**2 + self.start).sqrt(), x) * (noise - seen.lift(along))
        return self.first() + seen.lift(left) + hidden

    def pull(self) -> Tensor:
        return self.seen.lift(self.dual)

    def conditioned(self, x: Tensor, w: Tensor, level: Tensor) -> Tensor:
        z = self.seen.analyze(x)
        data = self.data = self.seen.observe(z, w, self.dual)
        rest = data.value - z - data.variance * self.dual
        self.dual = self.dual + rest / (data.variance + self.step * column(level.square(), z))
        self.error = data.w
        return x + self.seen.lift(_gain(data, z) * rest)


def _gain(data: Observation, z: Tensor) -> Tensor:
    """w/(w + ν): how far the observation moves the coordinates."""
    w = column(data.w, z)
    return w / (w + data.variance)
