"""What linear estimates share: no prior, one step, and problems that they suit."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, Solver
from diffsplit.solvers.recovery import Answer, State

__all__ = ["LinearEstimate", "as_numbers"]


class LinearEstimate(Solver):
    """A linear function of the measurements, with no network: what recoveries are compared with.

    Called as every solver; the prior may be left out.
    """

    @classmethod
    @abstractmethod
    def suits(cls, problem: Problem) -> bool:
        """Whether the estimate makes sense for a problem."""

    @abstractmethod
    def _estimate(self, problem: Problem, y: Tensor) -> Tensor:
        """The estimate ``(B, *shape_in)``."""

    @property
    def requires(self) -> None:
        return None

    def check(self, problem: Problem, prior: object) -> None:
        if not self.suits(problem):
            what = (type(self).__doc__ or "").splitlines()[0].rstrip(".")
            raise InputError(
                f"{type(self).__name__} does not suit {problem.operator} and {problem.channel} "
                f"({what}); use solvers.linear_baseline(problem), which chooses an estimate."
            )

    def _solve(
        self, problem: Problem, y: Tensor, prior: object, generator: Generators
    ) -> Algorithm:
        image = self._estimate(problem, y)
        yield State(0.0, image.clamp(-1, 1))
        return Answer(image)


def as_numbers(problem: Problem, y: Tensor) -> Tensor:
    """Measurements of any channel and dtype as floats in the units of A x."""
    values = problem.channel.value(y)
    return values if values.is_floating_point() else values.float()
