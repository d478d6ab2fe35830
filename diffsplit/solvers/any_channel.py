"""Methods for any channel, which can be asked to read it as linear as the papers' tables did."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, Solver
from diffsplit.solvers.linear_model import Reading, solved_as_linear

__all__ = ["AnyChannelSolver", "Family", "family_of", "with_noise_floor"]

Family = Literal["inpainting", "super-resolution", "sums", "deblurring"]


@dataclass(frozen=True)
class AnyChannelSolver(Solver):
    """A method that works with the likelihood of a channel, or with a linear reading of it.

    A subclass defines `_recover`, and `_check_model` where it cannot treat every problem; they get
    the problem as it is read.

    Attributes:
        reading: None for the channel's own likelihood. "literal" reads other channels than Gaussian
            noise as linear, as the tables of Chen and Liu did, "bussgang" with the scale that is
            right on average; see `diffsplit.solvers.linear_model`.
    """

    reading: Reading | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.reading is not None and self.reading not in get_args(Reading):
            raise InputError(f"reading is 'literal', 'bussgang' or None, not {self.reading!r:.40}.")

    def check(self, problem: Problem, prior: Any) -> None:
        if self._reads(problem):
            # What matters of the noise is that there is some: its level depends on the reading.
            problem = Problem(problem.operator, GaussianNoise(1.0))
        self._check_model(problem, prior)

    def _reads(self, problem: Problem) -> bool:
        return self.reading is not None and problem.channel.gaussian_sigma is None

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        """Raise InputError where the algorithm cannot treat the problem as it is read."""

    @abstractmethod
    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        """The algorithm, for the problem as it is read."""

    def _solve(self, problem: Problem, y: Tensor, prior: Any, generator: Generators) -> Algorithm:
        def solve(problem: Problem, y: Tensor) -> Algorithm:
            return self._recover(problem, y, prior, generator)

        if self.reading is None:
            return solve(problem, y)
        return solved_as_linear(solve, problem, y, self.reading)


def family_of(problem: Problem) -> Family:
    """Which of the families of tasks that papers have settings for an operator belongs to."""
    operator = problem.operator
    if operator.pixels is not None:
        return "inpainting"
    if operator.stride is not None:
        return "super-resolution" if operator.stride > 1 else "deblurring"
    return "sums" if problem.channel.outcomes is not None else "deblurring"


def with_noise_floor(problem: Problem, floor: float) -> Problem:
    """The problem with at least ``floor`` of Gaussian noise; other channels stay as they are."""
    sigma = problem.channel.gaussian_sigma
    if sigma is None or sigma >= floor:
        return problem
    return Problem(problem.operator, GaussianNoise(floor))
