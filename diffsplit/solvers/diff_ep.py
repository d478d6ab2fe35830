"""DiffEP: expectation propagation between the measurements and a diffusion model.

Two algorithms behind one name. Where the error that measurements leave is white, because A has
i.i.d. or randomized orthogonal rows or sees everything alike, messages pass: `MessagePassing`.
Where A shows some directions well and others not at all, as a blur, a mask or a down-sampling does,
the measurements pull along each direction by itself: `Renoising`. It also takes operators of which
only A and Aᵀ are known, such as a user's function or sparse matrix, by conjugate gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffsplit.noise import Generators
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm
from diffsplit.solvers.message_passing.message_passing import MessagePassing
from diffsplit.solvers.problem_facts import leaves_white_errors
from diffsplit.solvers.sampling import SamplingSolver
from diffsplit.solvers.spectral.renoising import Renoising

__all__ = ["DiffEP"]


@dataclass(frozen=True)
class DiffEP(SamplingSolver):
    """Expectation propagation with a diffusion model, for any channel: our own solver.

    It runs `MessagePassing` or `Renoising`, whichever suits the operator.
    Where messages pass, the result knows how good it is: ``predicted_error`` is the mean squared
    error per entry that the exchange found, image by image, and ``converged`` says where it did not
    settle. Renoising knows its error by the variance of its samples: ``predicted_error`` is None
    unless two or more are drawn.

    Attributes:
        levels: denoiser evaluations of a renoising walk, see `Renoising`.
        iterations, damping, tolerance, spread: of message passing, see `MessagePassing`.
        output, samples, sample_steps, sampler: see `SamplingSolver`; a `sampler` serves message
            passing; a sample of a renoising problem takes four evaluations more than ``levels``
            unless told otherwise.
    """

    levels: int = 20
    iterations: int = 10
    damping: float = 0.3
    tolerance: float = 0.01
    spread: float = 0.2

    step_fields: ClassVar[tuple[str, ...]] = ("iterations", "levels")
    cost: ClassVar[str] = "8 to 12, or 20 behind a blur, a mask or a reduction"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._message_passing()
        self._renoising()

    def _message_passing(self) -> MessagePassing:
        return MessagePassing(
            iterations=self.iterations,
            damping=self.damping,
            tolerance=self.tolerance,
            spread=self.spread,
            output=self.output,
            samples=self.samples,
            sample_steps=self.sample_steps,
            sampler=self.sampler,
        )

    def _renoising(self) -> Renoising:
        return Renoising(
            levels=self.levels,
            output=self.output,
            samples=self.samples,
            sample_steps=self.sample_steps,
            sampler=self.sampler,
        )

    def algorithm(self, problem: Problem) -> MessagePassing | Renoising:
        """The one that runs for a problem.

        Renoising serves any operator, and message passing those that leave a white error.
        """
        if Renoising.suits(problem) and not leaves_white_errors(problem):
            return self._renoising()
        return self._message_passing()

    def check(self, problem: Problem, prior: Denoiser) -> None:
        self.algorithm(problem).check(problem, prior)

    def steps_at_most(self, problem: Problem) -> int:
        return self.algorithm(problem).steps_at_most(problem)

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        return self.algorithm(problem)._solve(problem, y, prior, generator)
