"""What solvers share that answer with a posterior mean, a posterior sample, or many of these."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import ConsistencyModel, Denoiser, Prior
from diffsplit.problem import Problem
from diffsplit.solvers.base import Solver, are_counts
from diffsplit.solvers.intervals import Factor, calibrated_std, check_factor, rounding
from diffsplit.solvers.posterior import batches_of_samples, posterior_samples
from diffsplit.solvers.recovery import Answer, Callback, Recovery, State

__all__ = ["SamplingSolver"]


@dataclass(frozen=True, kw_only=True)
class SamplingSolver(Solver):
    """Parameters of what to answer with.

    Attributes:
        output: ``"mean"``, the posterior mean, or ``"sample"``, a sharp posterior sample.
        samples: how many posterior samples to draw. One is drawn only for ``output="sample"``;
            two or more are drawn in any case and give standard deviations and intervals.
        sample_steps: network evaluations per sample; 10 unless told otherwise, with a `sampler` 2.
        sampler: a consistency model that draws the samples in one or two evaluations.
        interval_factor: by which intervals are widened, as `uncertainty.calibrate` found it.
    """

    output: Literal["mean", "sample"] = "mean"
    samples: int = 1
    sample_steps: int | None = None
    sampler: ConsistencyModel | None = None
    interval_factor: Factor = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not are_counts(self.samples, self.steps_per_sample):
            raise InputError(
                f"{name} needs whole samples and sample_steps ≥ 1, not {self.samples} and "
                f"{self.steps_per_sample}."
            )
        if self.sampler is not None and not isinstance(self.sampler, ConsistencyModel):
            raise InputError(
                "the sampler is a consistency model, such as load_prior('cats-64-consistency'), "
                f"not {type(self.sampler).__name__}; leave it out to draw from the prior."
            )
        if self.sampler is not None and self.steps_per_sample > 2:
            raise InputError(
                f"a sampler takes one or two evaluations, not {self.steps_per_sample}; give "
                "sample_steps=1 or 2."
            )
        if not isinstance(self.output, str) or self.output not in ("mean", "sample"):
            raise InputError(f"output is 'mean' or 'sample', not {self.output!r}.")
        check_factor(self.interval_factor)

    def __call__(
        self,
        problem: Problem,
        y: Tensor,
        prior: Prior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Recovery:
        """Recover images, with standard deviations that agree with the predicted error.

        Takes and raises what `Solver.__call__` does.
        """
        found = super().__call__(problem, y, prior, generator=generator, callback=callback)
        assert prior is not None  # the call checked it
        std = None
        if found.samples is not None and len(found.samples) > 1:
            std = calibrated_std(found.samples, found.predicted_error, rounding(prior.bounds))
            if self.output == "sample" and found.predicted_error is None:
                std = math.sqrt(2) * std  # as far is a sample from the truth
        return replace(found, std=std, interval_factor=self.interval_factor, bounds=prior.bounds)

    @property
    def steps_per_sample(self) -> int:
        """Network evaluations of one posterior sample."""
        if self.sample_steps is not None:
            return self.sample_steps
        return 10 if self.sampler is None else 2

    @property
    def draws(self) -> int:
        """How many samples a run draws."""
        return self.samples if self.samples > 1 or self.output == "sample" else 0

    @property
    def steps_of_samples(self) -> int:
        """States that drawing from an image in white noise yields."""
        steps = 1 if self.sampler is not None else self.steps_per_sample
        return steps * batches_of_samples(self.draws)

    def check(self, problem: Problem, prior: Denoiser) -> None:
        if self.sampler is None:
            return
        if tuple(self.sampler.shape) != tuple(prior.shape):
            raise InputError(
                f"the sampler's images have shape {tuple(self.sampler.shape)} and the prior's "
                f"{tuple(prior.shape)}; give a consistency model of the same size."
            )
        if self.sampler.device != prior.device:
            raise InputError(
                f"the sampler is on {self.sampler.device} and the prior on {prior.device}; move "
                "one of them with .to(device)."
            )
        if self.draws == 0:
            raise InputError(
                "a sampler draws posterior samples, and none are asked for; add samples=8 or "
                "output='sample', or leave it out."
            )

    def drawn(
        self, prior: Denoiser, r: Tensor, sigma: Tensor, generator: Generators
    ) -> Generator[State, None, Tensor]:
        """Posterior samples ``(S, B, *shape)`` of noisy images, see `posterior_samples`."""
        source = self.sampler or prior
        return posterior_samples(source, r, sigma, self.draws, self.steps_per_sample, generator)

    def answer(
        self,
        mean: Tensor,
        samples: Tensor | None,
        error: Tensor | None,
        converged: Tensor | None = None,
        reason: str = "",
    ) -> Answer:
        """What was asked for: the mean with its error, or a sample, whose error is twice that."""
        if self.output == "mean" or samples is None:
            return Answer(mean, samples, error, converged, reason)
        return Answer(samples[0], samples, None if error is None else 2 * error, converged, reason)
