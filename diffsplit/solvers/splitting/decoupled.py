"""What DCDP in pixels and in latents share: parameters, checks and the trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.data_steps.momentum import (
    check_step_size,
    default_step_size,
    matched_step_size,
    misfit,
    momentum_steps,
)
from diffsplit.data_steps.recurrence import CollapsedMomentum, collapsed_momentum, collapses
from diffsplit.errors import DivergenceError, InputError
from diffsplit.priors.base import Prior, per_image
from diffsplit.problem import Problem
from diffsplit.schedules import decay
from diffsplit.solvers.base import Solver, Watch
from diffsplit.solvers.purify import Purifier, purification_grid

__all__ = ["DecoupledSolver"]


@dataclass(frozen=True)
class DecoupledSolver(Solver):
    """Rounds of a data step and a purification; the parameters are explained in `DCDP`."""

    rounds: int = 10
    tau: int = 100
    step_size: float | None = None
    momentum: float = 0.9
    start: float | None = None
    end: float = 0.0
    purifier: Purifier = "ddim"
    purifier_steps: int = 20
    schedule: str = "linear"
    return_: Literal["purified", "consistent"] = "purified"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if min(self.rounds, self.tau, self.purifier_steps) < 1 or not 0 <= self.momentum < 1:
            raise InputError(
                f"{name} needs rounds, tau and purifier_steps ≥ 1 and 0 ≤ momentum < 1, not {self}."
            )
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise InputError(f"step_size is a positive number or None, not {self.step_size}.")
        if self.purifier not in get_args(Purifier):
            raise InputError(f"purifier is one of {get_args(Purifier)}, not {self.purifier!r}.")
        if self.return_ not in ("purified", "consistent"):
            raise InputError(f"return_ is 'purified' or 'consistent', not {self.return_!r}.")
        top = math.inf if self.purifier == "consistency" else 1000
        levels = self.levels
        if not 0 <= levels[-1] <= levels[0] <= top or not math.isfinite(levels[0]):
            raise InputError(
                f"purification runs from {levels[0]:g} to {levels[-1]:g}; give start ≥ end ≥ 0, "
                "in DDPM timesteps up to 1000, or in noise levels with purifier='consistency'."
            )

    @property
    def levels(self) -> list[float]:
        """T_1 … T_K, before they are rounded."""
        start = self.start
        if start is None:
            start = max(1.0 if self.purifier == "consistency" else 400.0, self.end)
        return decay(start, self.end, self.rounds, self.schedule)

    @property
    def steps_at_most(self) -> int:
        return self.rounds

    def _grid(self, level: float, prior: Prior) -> list[float]:
        return purification_grid(self.purifier, level, self.purifier_steps, prior)

    def _check_pixel_step(self, problem: Problem) -> None:
        if self.step_size is not None and isinstance(problem.channel, GaussianNoise):
            check_step_size(problem.operator, self.step_size, self.momentum)

    def _pixel_step(self, problem: Problem, y: Tensor) -> Callable[[Tensor, float], Tensor]:
        """(v, σ) ↦ x: τ momentum steps on images, at once where the operator allows it.

        Where measurements are noisy, σ limits steps whose size is left open: `matched_step_size`.
        """
        tau, momentum, channel = self.tau, self.momentum, problem.channel
        step_size = self.step_size
        if step_size is None:
            step_size = default_step_size(problem, y)
        # What ∇f lacks of the gradient of −log p: 1/σ_y² with Gaussian noise.
        scale = channel.sigma**2 if isinstance(channel, GaussianNoise) else 1.0
        limited = self.step_size is None and scale > 0
        if collapses(problem) and not limited:
            collapsed = CollapsedMomentum(problem, y, tau, step_size, momentum)
            return lambda v, sigma: collapsed(v)
        walk = collapsed_momentum if collapses(problem) else momentum_steps

        def steps(v: Tensor, sigma: float) -> Tensor:
            most = matched_step_size(sigma, tau, momentum) / scale if limited else math.inf
            return walk(problem, y, v, tau, min(step_size, most), momentum)

        return steps

    def _note(self, watch: Watch, sigma: float, x: Tensor, v: Tensor) -> None:
        """One round in the trace, unless it left the finite numbers."""
        round_ = f"round {len(watch.trace) + 1} of {self.rounds}"
        if not bool(torch.isfinite(x).all()):
            raise DivergenceError(
                f"{round_}: the data step left the finite numbers; its step_size is too large for "
                "this problem, so choose a smaller one."
            )
        if not bool(torch.isfinite(v).all()):
            raise DivergenceError(
                f"{round_}: the prior's answer at noise level {sigma:.4g} is not finite; check the "
                "model, or use another purifier."
            )
        channel, y = watch.problem.channel, watch.y
        s = watch.problem.operator.apply(v)
        misfits = {
            "misfit": misfit(channel, s, y),
            "misfit_consistent": misfit(channel, watch.problem.operator.apply(x), y),
        }
        watch(per_image(sigma, len(v), v), v, s, consistent=x, **misfits)
