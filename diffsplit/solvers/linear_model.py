"""Measurements of any channel, read as if they were linear: y = A x + noise.

Many methods know Gaussian noise alone. The 1-bit papers compare with them all the same, "ignoring
the non-linear link function" (Chen and Liu, Section V): a bit stands for the number that
`Channel.value` gives it, −1 or 1, and A x is taken to be that number. For an image of mean square
m = 0.25 and s = A x ~ N(0, m c), two readings are offered:

    literal    y' = value(y),      σ² = E (value(y) − s)²
    bussgang   y' = value(y)/κ,    κ = E[s value(y)]/E[s²],   σ² = E (y' − s)²

The first is what the papers' tables were made with. It implies a scale: an image whose A x is as
wide as ±1, whatever its own was. In the second the error of y' is uncorrelated with s (Bussgang's
theorem), so that the scale is right on average.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like, seeded
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, Solver
from diffsplit.solvers.linear.base import as_numbers
from diffsplit.solvers.problem_facts import MEAN_SQUARE

__all__ = ["LinearModelSolver", "LinearReading", "Reading", "read_as_linear", "solved_as_linear"]

Reading = Literal["literal", "bussgang"]
PROBES = 10_000


class LinearReading(NamedTuple):
    """A problem with Gaussian noise, and its measurements.

    Attributes:
        problem: the same operator with `GaussianNoise`.
        y: ``(B, *shape_out)``, floats in the units of A x.
        note: what was read how, in a sentence without its stop; "" where the noise was Gaussian
            already.
    """

    problem: Problem
    y: Tensor
    note: str


def read_as_linear(problem: Problem, y: Tensor, reading: Reading = "literal") -> LinearReading:
    """The linear problem that stands for one of any channel, see above."""
    channel = problem.channel
    if channel.gaussian_sigma is not None:
        return LinearReading(problem, y, "")
    tau, generator = MEAN_SQUARE * problem.operator.gram.mean, seeded(0, "read_as_linear")
    s = math.sqrt(tau) * randn_like(torch.empty(1, PROBES, dtype=torch.float64), generator)
    value = channel.value(channel.sample(s, generator)).to(s)
    scale = 1.0
    if reading == "bussgang":
        scale = float(s.square().mean() / (s * value).mean())
    sigma = float((scale * value - s).square().mean().sqrt())
    note = (
        f"the measurements of {channel} were read as A x plus Gaussian noise of {sigma:.2g}, "
        f"each as {scale:.3g} times its value"
    )
    linear = Problem(problem.operator, GaussianNoise(sigma))
    return LinearReading(linear, scale * as_numbers(problem, y), note)


def solved_as_linear(
    solve: Callable[[Problem, Tensor], Algorithm],
    problem: Problem,
    y: Tensor,
    reading: Reading,
    reason: str = "",
) -> Algorithm:
    """Run an algorithm on the linear reading of a problem; its answer says what was read how.

    Args:
        solve: from a problem in Gaussian noise and its measurements to the algorithm.
        reason: why it was read so, to be said with it.
    """
    linear = read_as_linear(problem, y, reading)
    answer = yield from solve(linear.problem, linear.y)
    if not linear.note:
        return answer
    said = f"{linear.note}: {reason}." if reason else f"{linear.note}."
    return replace(answer, note=f"{said} {answer.note}".strip())


@dataclass(frozen=True)
class LinearModelSolver(Solver):
    """A method that knows Gaussian noise alone; other channels are read as linear, and it says so.

    A subclass defines `_solve_linear`; its problem has a ``channel.gaussian_sigma``.

    Attributes:
        reading: of other channels, "literal", as the papers' tables were made, or "bussgang", with
            the scale that is right on average; see `diffsplit.solvers.linear_model`.
    """

    reading: Reading = field(default="literal", kw_only=True)

    def __post_init__(self) -> None:
        if self.reading not in get_args(Reading):
            raise InputError(f"reading is 'literal' or 'bussgang', not {self.reading!r:.40}.")

    @abstractmethod
    def _solve_linear(
        self, problem: Problem, y: Tensor, prior: Any, generator: Generators
    ) -> Algorithm:
        """The algorithm, for Gaussian noise."""

    def _solve(self, problem: Problem, y: Tensor, prior: Any, generator: Generators) -> Algorithm:
        def solve(linear: Problem, numbers: Tensor) -> Algorithm:
            return self._solve_linear(linear, numbers, prior, generator)

        reason = "this method knows no other channel"
        return solved_as_linear(solve, problem, y, self.reading, reason)
