"""What methods that guide a walk in latents have in common: the model, the steps, the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffsplit.priors.base import LatentModel
from diffsplit.problem import Problem
from diffsplit.solvers.linear_model import LinearModelSolver

__all__ = ["GuidedInLatents"]


@dataclass(frozen=True)
class GuidedInLatents(LinearModelSolver):
    """A walk down the noise levels of latents, each step with a gradient through the decoder.

    Attributes:
        steps: noise levels.
    """

    steps: int = 1000

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, other channels read as linear"

    @property
    def requires(self) -> type[LatentModel]:
        return LatentModel

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps
