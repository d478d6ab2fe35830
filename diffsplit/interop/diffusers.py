"""diffusers: a pipeline with its habits, and its schedulers as samplers of the posterior.

A scheduler walks from noise to an image and asks a model at each timestep for the noise ε, the
image or the velocity v in α x0 + s n, with α² + s² = 1. Here the model is `ConditionedDenoiser`,
x̂ = E[x0 | x_σ, y] at σ = s/α:   ε = (x_σ − x̂)/σ,   v = α ε − s x̂.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging
from diffusers.utils.outputs import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from diffsplit.arguments import are_counts
from diffsplit.errors import InputError
from diffsplit.interop.unit_range import to_unit
from diffsplit.io.images import to_uint8
from diffsplit.noise import Generators, randn_like
from diffsplit.priors import Denoiser, Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import DiffEP, Recovery, Solver, State
from diffsplit.solvers.base import Algorithm, zeros_for
from diffsplit.solvers.recovery import Answer, Step
from diffsplit.solvers.spectral.conditioned import ConditionedDenoiser
from diffsplit.solvers.spectral.renoising import module_for

__all__ = ["RecoveryPipeline", "RecoveryPipelineOutput", "ScheduledSampling"]

OUTPUTS = ("pil", "pt", "np")


@dataclass(frozen=True)
class ScheduledSampling(Solver):
    """A posterior sample by the steps of a diffusers scheduler.

    Attributes:
        scheduler: a variance-preserving one with ``alphas_cumprod``, such as ``DDIMScheduler``,
            ``EulerDiscreteScheduler`` or ``DPMSolverMultistepScheduler``; it is copied.
        steps: timesteps, and evaluations of the model where a step takes one.
    """

    scheduler: Any
    steps: int = 50

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        if not isinstance(self.scheduler, SchedulerMixin) or not hasattr(
            self.scheduler, "alphas_cumprod"
        ):
            raise InputError(
                "a diffusers scheduler with alphas_cumprod was expected, such as DDIMScheduler(), "
                f"not {type(self.scheduler).__name__}."
            )
        if not are_counts(self.steps):
            raise InputError(f"steps is a whole number from 1 up, not {self.steps!r}.")

    def steps_at_most(self, problem: Problem) -> int:
        return getattr(self.scheduler, "order", 1) * self.steps

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(self.steps, device=y.device)
        random = {"generator": generator} if _takes_generator(scheduler) else {}
        kind = scheduler.config.get("prediction_type", "epsilon")
        sample = scheduler.init_noise_sigma * randn_like(zeros_for(problem, y), generator)
        denoise: ConditionedDenoiser | None = None
        # As plain numbers, read once: each look at the device would wait for it.
        for t, number in zip(scheduler.timesteps, scheduler.timesteps.tolist(), strict=True):
            scaled = scheduler.scale_model_input(sample, t)  # α x0 + s n, whatever sample is
            sigma = _level(scheduler, number)
            alpha = 1 / math.sqrt(1 + sigma**2)
            x = scaled / alpha
            if denoise is None:
                denoise = ConditionedDenoiser(prior, module_for(problem, y, prior), sigma)
            clean = denoise(x, x.new_full((1,), sigma))
            noise = (x - clean) / sigma
            velocity = alpha * (noise - sigma * clean)
            output = {"epsilon": noise, "sample": clean, "v_prediction": velocity}[kind]
            sample = scheduler.step(output, t, sample, **random).prev_sample
            yield State(sigma, clean, walk=1)
        return Answer(prior.clip(sample), sample[None])


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def _level(scheduler: Any, timestep: float) -> float:
    """σ at a timestep; a scheduler that keeps x0 + σ n has its levels in a list of its own."""
    if float(scheduler.init_noise_sigma) > 1:
        return float(scheduler.sigmas[scheduler.step_index])
    alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
    return math.sqrt((1 - alpha_bar) / alpha_bar)


@dataclass
class RecoveryPipelineOutput(BaseOutput):  # type: ignore[misc]
    """What the pipeline returns.

    Attributes:
        images: a list of PIL images; or ``(B, C, H, W)`` or ``(B, H, W, C)`` on [0, 1].
        recovery: the same on [-1, 1], with errors, samples and the trace.
    """

    images: list[Image.Image] | Tensor | NDArray[np.float32]
    recovery: Recovery


class RecoveryPipeline:
    """Recover images as one generates them with diffusers.

        pipe = RecoveryPipeline.from_pretrained("cats-64")
        pipe(problem, y, num_inference_steps=20).images[0].save("cat.png")

    Args:
        prior: what `load_prior` gives.
        solver: `DiffEP` if None.
        scheduler: of diffusers; posterior samples are then drawn by its steps, and no solver is
            taken.

    Attributes:
        prior, solver, scheduler: may be set to others.
    """

    def __init__(
        self, prior: Prior, solver: Solver | None = None, scheduler: Any | None = None
    ) -> None:
        if not isinstance(prior, Prior):
            raise InputError(
                f"a pipeline is made of a prior, not {type(prior).__name__}; use "
                "RecoveryPipeline.from_pretrained('cats-64')."
            )
        if solver is not None and scheduler is not None:
            raise InputError(
                "a scheduler draws samples by itself and takes no solver; give one of the two."
            )
        self.prior, self.solver, self.scheduler = prior, solver, scheduler
        self._progress: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | Any,
        *,
        solver: Solver | None = None,
        scheduler: Any | None = None,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """A pipeline with a bundled prior, one of a folder, or one of the hub.

        Args:
            source, device: see `load_prior`; ``torch_dtype`` is its ``dtype``.
            solver, scheduler: see the class.

        Raises:
            InputError: see `load_prior`, or both a solver and a scheduler.
        """
        prior = load_prior(source, device=device, dtype=torch_dtype)
        return cls(prior, solver, scheduler)

    @property
    def device(self) -> torch.device:
        """Where the prior computes, and where measurements have to be."""
        return self.prior.device

    def to(self, device: str | torch.device) -> Self:
        """Move the prior, and return the pipeline."""
        self.prior.to(device)
        return self

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the progress bar, those of tqdm; ``disable=True`` hides it."""
        self._progress = options

    def __call__(
        self,
        problem: Problem,
        y: Tensor,
        num_inference_steps: int | None = None,
        *,
        generator: Generators | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Step], None] | None = None,
    ) -> RecoveryPipelineOutput:
        """Recover images from measurements.

        Args:
            problem, y: what was measured, and how; see `Solver`.
            num_inference_steps: of the solver or scheduler; None for its own number.
            generator: one, or one per image; the same one always if None.
            output_type: ``"pil"``, ``"pt"`` or ``"np"``.
            callback_on_step_end: called with a `Step` after each.

        Raises:
            InputError: another output type, steps for a solver that has none, or see `Solver`.
        """
        if not isinstance(output_type, str) or output_type not in OUTPUTS:
            raise InputError(f"output_type is one of {OUTPUTS}, not {output_type!r:.40}.")
        solver = self._solver(num_inference_steps)
        total = solver.steps_at_most(problem) if isinstance(problem, Problem) else None
        with logging.tqdm(total=total, **self._progress) as bar:

            def after(step: Step) -> None:
                bar.update()
                if callback_on_step_end is not None:
                    callback_on_step_end(step)

            recovery = solver(problem, y, self.prior, generator=generator, callback=after)
        return RecoveryPipelineOutput(_converted(recovery.image, output_type), recovery)

    def _solver(self, steps: int | None) -> Solver:
        solver: Any = self.solver or DiffEP()
        if self.scheduler is not None:
            solver = ScheduledSampling(self.scheduler)
        if steps is not None and not solver.step_fields:
            raise InputError(
                f"{type(solver).__name__} takes no number of steps; leave num_inference_steps out."
            )
        counts = {} if steps is None else dict.fromkeys(solver.step_fields, steps)
        chosen: Solver = replace(solver, **counts)
        return chosen


def _converted(image: Tensor, output_type: str) -> list[Image.Image] | Tensor | NDArray[np.float32]:
    if output_type == "pt":
        return to_unit(image)
    last = image.movedim(1, -1).cpu()
    if output_type == "np":
        values: NDArray[np.float32] = to_unit(last).float().numpy()
        return values
    pictures = to_uint8(last).numpy()
    return [
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        for picture in pictures
    ]
