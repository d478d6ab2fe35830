"""The measurement half of a renoising walk, and the one that works along known directions.

The walk hands a module the denoiser's answer and asks for an image in white noise of the next
level. How the error is whitened depends on what is known of A: with a spectrum or orthogonal rows
each direction is treated by itself, as `renoising` describes; with A and Aᵀ alone a linear system
is solved, see `conjugate_gradients`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.problem import Problem
from diffsplit.solvers.base import zeros_for
from diffsplit.solvers.message_passing.evidence import column, total
from diffsplit.solvers.spectral.observation import Observation, directions_of

__all__ = ["DUAL_STEP", "DirectionsModule", "RenoisingModule", "bounded_share"]

LEAST, LARGEST = 0.003, 0.9
"""Bounds of α."""
DUAL_STEP = 0.6
"""Share of σ² in the step of λ: more than half, so that no direction overshoots."""


class RenoisingModule(ABC):
    """What a renoising walk asks of the measurements.

    It starts from the image 0, whose error is the prior's mean square.

    Attributes:
        alike: whether A shows all directions that it sees equally well.
        error: w, the error variance of the last estimate by the evidence ``(B,)``.
        unsolved: the most that a linear system of the walk left, as a share of its right side
            ``(B,)``; None where each direction is solved exactly.
    """

    alike: bool
    error: Tensor
    unsolved: Tensor | None = None

    @abstractmethod
    def finest(self) -> Tensor:
        """The noise variance of the direction that is seen best ``(B,)``."""

    @abstractmethod
    def renoise(self, x: Tensor, level: Tensor, kappa: float, generator: Generators) -> Tensor:
        """An image in white noise ``(B, *shape)``.

        Args:
            x: the last answer.
            level: σ of the noise ``(B,)``.
            kappa: κ; see `Renoising`.
        """

    @abstractmethod
    def receive(self, x: Tensor, r: Tensor, level: Tensor) -> None:
        """Take the denoiser's answer ``x`` to ``r``, and ask the evidence for its error."""

    @abstractmethod
    def completed(self, x: Tensor, level: Tensor, last: bool) -> Tensor:
        """The answer that `receive` took, with what r did not carry of the measurements.

        Args:
            last: whether the walk ends here. What is costly is left out before.
        """

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


def bounded_share(
    fresh: Tensor, moved: Tensor, before: Tensor, count: int, level: Tensor
) -> Tensor:
    """α ``(B,)``: the share of the fresh noise that the denoiser let through, bounded.

    Where there was too little noise to tell, it stays what it was before.

    Args:
        fresh: the noise n.
        moved: by how much the answer moved.
        before: α of the last level.
        count: of the directions that noise goes to.
        level: σ.
    """
    power = total(fresh.square())
    share = total(fresh * moved) / power.clamp(min=1e-12)
    enough = power > 0.05 * count * level.square()
    return torch.where(enough, share, before).clamp(LEAST, LARGEST)


class DirectionsModule(RenoisingModule):
    """Whitening along the directions of `Directions`; the formulas are in `renoising`.

    Args:
        problem, y: what was measured.
        mean_square: of the prior's images.
    """

    def __init__(self, problem: Problem, y: Tensor, mean_square: float) -> None:
        self.seen = directions_of(problem, y)
        self.alike = self.seen.alike
        self.x = zeros_for(problem, y)
        self.z, w = self.seen.analyze(self.x), self.x.new_full((len(y),), mean_square)
        self.data = self.seen.observe(self.z, w)
        self.start, self.error = w, self.data.w
        self.alpha = torch.full_like(w, LARGEST)
        self.dual = torch.zeros_like(self.z)

    def finest(self) -> Tensor:
        return self.seen.finest(self.data)

    def renoise(self, x: Tensor, level: Tensor, kappa: float, generator: Generators) -> Tensor:
        seen, data, z = self.seen, self.data, self.z
        variance = column(level.square(), z)
        noise = randn_like(x, generator)
        along = seen.analyze(noise)
        self.fresh = (variance - data.variance).clamp(min=0).sqrt() * along
        hidden = (level.square() - kappa * data.w).clamp(min=0).sqrt()
        step = (variance / data.variance).clamp(max=1) * (data.value - z)
        return x + seen.lift(step + self.fresh) + column(hidden, x) * (noise - seen.lift(along))

    def receive(self, x: Tensor, r: Tensor, level: Tensor) -> None:
        seen = self.seen
        before, self.z = self.z, seen.analyze(x)
        self.alpha = bounded_share(self.fresh, self.z - before, self.alpha, seen.count, level)
        error = level.square() * self.alpha
        z = self.z
        if seen.alike:
            z = seen.analyze((x - column(self.alpha, x) * r) / column(1 - self.alpha, x))
            error = error / (1 - self.alpha)
        self.data = seen.observe(z, error)
        self.error = self.data.w

    def completed(self, x: Tensor, level: Tensor, last: bool) -> Tensor:
        data, z = self.data, self.z
        t = data.w if not self.seen.alike else 1 / (1 / data.w + 1 / level.square())
        variance = column(level.square(), z)
        rest = (1 / data.variance - 1 / variance).clamp(min=0) * column(t, z)
        return x + self.seen.lift(rest / (1 + rest) * (data.value - z))

    def posterior_start(self, level: float, generator: Generators) -> Tensor:
        seen, data, z, x = self.seen, self.data, self.z, self.x
        known = x + seen.lift(_gain(data, z) * (data.value - z))
        noise = randn_like(x, generator)
        along = seen.analyze(noise)
        # The error of the start, in the noise of the first level: e = w ν/(w + ν), w where hidden.
        left = (level**2 + _gain(data, z) * data.variance).sqrt() * along
        hidden = column((level**2 + self.start).sqrt(), x) * (noise - seen.lift(along))
        return known + seen.lift(left) + hidden

    def pull(self) -> Tensor:
        return self.seen.lift(self.dual)

    def conditioned(self, x: Tensor, w: Tensor, level: Tensor) -> Tensor:
        z = self.seen.analyze(x)
        data = self.seen.observe(z, w)
        rest = data.value - z - data.variance * self.dual
        self.dual = self.dual + rest / (data.variance + DUAL_STEP * column(level.square(), z))
        self.error = data.w
        return x + self.seen.lift(_gain(data, z) * rest)


def _gain(data: Observation, z: Tensor) -> Tensor:
    """w/(w + ν): how far the observation moves the coordinates."""
    w = column(data.w, z)
    return w / (w + data.variance)
