"""What DCDP in pixels and in latents share: parameters, checks and the data step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor
from typing_extensions import Self

from diffsplit.data_steps.momentum import (
    check_step_size,
    default_step_size,
    matched_step_size,
    momentum_steps,
)
from diffsplit.data_steps.recurrence import CollapsedMomentum, collapsed_momentum, collapses
from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import decay
from diffsplit.solvers.base import TINY, Solver, are_counts, is_number
from diffsplit.solvers.purify import Purifier, purification_grid
from diffsplit.solvers.splitting.dcdp_presets import TASKS, Family, preset_for

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

    step_fields: ClassVar[tuple[str, ...]] = ("rounds",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "10 to 20 (V2, CM) or about 200 (V1), and 1000 gradient steps of the data"
    family: ClassVar[Family] = "pixel"

    def __post_init__(self) -> None:
        counts = are_counts(self.rounds, self.tau, self.purifier_steps)
        ends = (self.end,) if self.start is None else (self.start, self.end)
        if not (
            counts
            and is_number(self.momentum, 0)
            and self.momentum < 1
            and all(is_number(end, 0) for end in ends)
        ):
            raise InputError(
                f"{type(self).__name__} needs whole rounds, tau and purifier_steps ≥ 1, "
                f"0 ≤ momentum < 1, and numbers start and end ≥ 0, not {self}."
            )
        if self.step_size is not None and not is_number(self.step_size, TINY):
            raise InputError(f"step_size is a positive number or None, not {self.step_size}.")
        if not isinstance(self.purifier, str) or self.purifier not in get_args(Purifier):
            raise InputError(f"purifier is one of {get_args(Purifier)}, not {self.purifier!r}.")
        if self.return_ not in ("purified", "consistent"):
            raise InputError(f"return_ is 'purified' or 'consistent', not {self.return_!r}.")
        top = math.inf if self.purifier == "consistency" else 1000
        levels = self.levels
        if not levels[-1] <= levels[0] <= top:
            raise InputError(
                f"purification runs from {levels[0]:g} to {levels[-1]:g}; give start ≥ end ≥ 0, "
                "in DDPM timesteps up to 1000, or in noise levels with purifier='consistency'."
            )

    @classmethod
    def preset(
        cls,
        task: str,
        image_size: int = 256,
        data: str = "ffhq",
        noise: float = 0.0,
        ending: Literal["paper", "adapted"] = "paper",
        **overrides: Any,
    ) -> Self:
        """The paper's settings: Table 6 (pixels), 7 (latents) or 8 (``purifier="consistency"``).

        Args:
            task: "super-resolution", "gaussian-deblur", "motion-deblur", "inpaint-box",
                "inpaint-random" or "denoise"; the last two are not in the paper, see
                `dcdp_presets`.
            image_size: side of the images. The paper's are 256, and its settings hold for all
                sizes, since η goes with the norm of A; only ``ending="adapted"`` depends on it.
            data: "ffhq" or "lsun-bedrooms"; they differ in latents.
            noise: σ_y of the measurements, in the units of A x; above 0 Appendix A.3 applies.
            ending: for noisy measurements, "paper", which ends at T_K = 250 or 300 at every σ_y,
                or "adapted", ours, which goes with σ_y and the size, see `dcdp_presets`.
            overrides: parameters of the solver to set otherwise; τ = 1000/K unless given.

        Raises:
            InputError: an unknown task, data set or ending, or a bad parameter.
        """
        if ending not in ("paper", "adapted"):
            raise InputError(f"the ending is 'paper' or 'adapted', not {ending!r}.")
        family: Family = cls.family
        if family == "pixel" and overrides.get("purifier") == "consistency":
            family = "consistency"
        adapted = ending == "adapted"
        return cls(**preset_for(task, family, image_size, data, noise, adapted, overrides))

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """The preset of a task that has one, with the adapted ending; else the general settings.

        ``ending`` among the settings chooses another, see `preset`; without a preset it has no
        meaning. Version 2 unless ``purifier`` says otherwise: the highest PSNR. Where measurements
        have no noise, the answer is x_K, which fits them, unless ``return_`` says otherwise.
        """
        sigma = problem.channel.gaussian_sigma
        answer = {"return_": "consistent"} if sigma == 0 else {}
        settings = {"purifier": "tweedie", **answer, **settings}
        ending = settings.pop("ending", "adapted")
        if sigma is None:
            return cls(**{"tau": 20, **settings})
        if not isinstance(task, str) or task not in TASKS:
            return cls(**settings)
        side = problem.operator.shape_in[-1]
        return cls.preset(task, side, noise=sigma, ending=ending, **settings)

    @property
    def levels(self) -> list[float]:
        """T_1 … T_K, before they are rounded."""
        start = self.start
        if start is None:
            start = max(1.0 if self.purifier == "consistency" else 400.0, self.end)
        return decay(start, self.end, self.rounds, self.schedule)

    def steps_at_most(self, problem: Problem) -> int:
        return self.rounds

    def _grid(self, level: float, prior: Denoiser | ConsistencyModel) -> list[float]:
        return purification_grid(self.purifier, level, self.purifier_steps, prior)

    def _check_pixel_step(self, problem: Problem) -> None:
        if self.step_size is not None and problem.channel.gaussian_sigma is not None:
            check_step_size(problem.operator, self.step_size, self.momentum)

    def _pixel_step(self, problem: Problem, y: Tensor) -> Callable[[Tensor, float], Tensor]:
        """(v, σ) ↦ x: τ momentum steps on images, at once where the operator allows it.

        Where measurements are noisy, σ limits steps whose size is left open: `matched_step_size`.
        """
        tau, momentum = self.tau, self.momentum
        step_size = self.step_size
        if step_size is None:
            step_size = default_step_size(problem, y)
        # What ∇f lacks of the gradient of −log p: 1/σ_y² with Gaussian noise.
        sigma_y = problem.channel.gaussian_sigma
        scale = 1.0 if sigma_y is None else sigma_y**2
        limited = self.step_size is None and scale > 0
        if collapses(problem) and not limited:
            collapsed = CollapsedMomentum(problem, y, tau, step_size, momentum)
            return lambda v, sigma: collapsed(v)
        descent = collapsed_momentum if collapses(problem) else momentum_steps

        def steps(v: Tensor, sigma: float) -> Tensor:
            most = matched_step_size(sigma, tau, momentum) / scale if limited else math.inf
            return descent(problem, y, v, tau, min(step_size, most), momentum)

        return steps
