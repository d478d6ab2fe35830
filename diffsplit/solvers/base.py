"""What all solvers share: the call, the checks, the count and the clock."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.errors import DivergenceError, InputError
from diffsplit.noise import Generators, check_generators, default_generator
from diffsplit.priors.base import Prior
from diffsplit.problem import Problem
from diffsplit.solvers.metered import MeteredOperator, MeteredPrior
from diffsplit.solvers.recovery import Callback, Recovery, Step, Trace

__all__ = ["Answer", "Solver", "Watch", "whole", "zeros_for"]


class Answer(NamedTuple):
    """What `Solver._solve` hands back: the image, and samples ``(S, B, *shape)`` if any."""

    image: Tensor
    samples: Tensor | None = None


def whole(*counts: int) -> bool:
    """Whether all numbers are integers from 1 up: a float is none, however round."""
    return all(type(count) is int and count >= 1 for count in counts)


def zeros_for(y: Tensor, prior: Prior) -> Tensor:
    """A batch of zero images to go with measurements, in their dtype where that is a float's."""
    dtype = y.dtype if y.is_floating_point() else torch.get_default_dtype()
    return torch.zeros((len(y), *prior.shape), dtype=dtype, device=y.device)


@dataclass
class Watch:
    """Keeps the trace and calls the user's callback, without waiting for the device."""

    problem: Problem
    y: Tensor
    total: int
    callback: Callback | None
    trace: Trace

    def __call__(
        self,
        sigma: Tensor,
        image: Tensor,
        s: Tensor,
        consistent: Tensor | None = None,
        **numbers: Tensor,
    ) -> None:
        """Note one step.

        Args:
            sigma: noise level ``(B,)``.
            image: the current estimate x̂ ``(B, *shape)``.
            s: A x̂ ``(B, *shape_out)``.
            consistent: see `Step`.
            numbers: further columns of the trace, each ``(B,)``.
        """
        channel = self.problem.channel
        row = {"sigma": sigma, "misfit": channel.nll(s, self.y).flatten(1).sum(1), **numbers}
        agreement = channel.sign_agreement(s, self.y)
        if agreement is not None:
            row["sign_consistency"] = agreement.flatten(1).mean(1)
        self.trace.rows.append(row)
        if self.callback is not None:
            self.callback(Step(len(self.trace) - 1, self.total, sigma, image, row, consistent))


class Solver(ABC):
    """An algorithm with its parameters; calling it recovers a batch.

    A subclass is a frozen dataclass with `check` (what it cannot do), `steps_at_most` and
    `_solve` (the algorithm).
    """

    def __new__(cls, *fields: object, **named: object) -> Solver:
        if fields and isinstance(fields[0], Problem):
            raise InputError(f"build the solver first: {cls.__name__}()(problem, y, prior).")
        return super().__new__(cls)

    @abstractmethod
    def check(self, problem: Problem, prior: Prior) -> None:
        """Raise InputError, naming what is missing, where this solver cannot help."""

    @property
    @abstractmethod
    def steps_at_most(self) -> int:
        """The most steps that a run takes, for progress bars."""

    @abstractmethod
    def _solve(
        self, problem: Problem, y: Tensor, prior: Prior, generator: Generators, watch: Watch
    ) -> Answer:
        """The algorithm."""

    def __call__(
        self,
        problem: Problem,
        y: Tensor,
        prior: Prior,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Recovery:
        """Recover images from measurements.

        Args:
            problem: the operator and channel that made ``y``.
            y: measurements ``(B, *operator.shape_out)``, on the operator's and prior's device.
            prior: the denoiser; ``prior.shape`` is the operator's ``shape_in``.
            generator: all randomness comes from it; a sequence of B gives each image its own.
                None stands for `default_generator()`, always the same.
            callback: called after each step with a `Step`.

        Raises:
            InputError: shapes do not fit, ``y`` is not finite, ``prior`` or ``generator`` is none,
                or the solver cannot treat the problem.
            DivergenceError: the result holds NaN or infinity.
        """
        if not isinstance(prior, Prior):
            raise InputError(
                f"a solver takes a prior, not {type(prior).__name__}; load it with "
                f"ds.load_prior({prior if isinstance(prior, str) else 'cats-64'!r})."
            )
        problem.check(y)
        generator = default_generator() if generator is None else generator
        check_generators(generator, len(y))
        if tuple(prior.shape) != tuple(problem.operator.shape_in):
            raise InputError(
                f"the prior knows images of shape {tuple(prior.shape)}, the measurements are of "
                f"{tuple(problem.operator.shape_in)}; load a prior of that size."
            )
        self.check(problem, prior)
        operator = MeteredOperator(problem.operator)
        metered = MeteredPrior(prior, len(y))
        watched = Problem(operator, problem.channel)
        watch = Watch(watched, y, self.steps_at_most, callback, Trace())
        start = time.perf_counter()
        with torch.no_grad():
            image, samples = self._solve(watched, y, metered, generator, watch)
            image = prior.clip(image)
            samples = None if samples is None else prior.clip(samples)
            finite = all(bool(torch.isfinite(t).all()) for t in (image, samples) if t is not None)
        seconds = time.perf_counter() - start
        if not finite:
            raise DivergenceError(
                f"{type(self).__name__} left the finite numbers; check the noise level and the "
                "scale of the operator, or use smaller steps."
            )
        return Recovery(
            image=image,
            nfe=metered.calls,
            operator_calls=operator.calls,
            seconds=seconds,
            trace=watch.trace,
            samples=samples,
            std=samples.std(0) if samples is not None and len(samples) > 1 else None,
        )
