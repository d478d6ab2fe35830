"""What all solvers share: the call, the checks, and the one place that drives an algorithm.

An algorithm is a generator: it yields its `State` after each step and returns its `Answer`. Here
it is run, counted, timed, traced, shown to the user's callback, and stopped where it gives NaN or
infinity.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Generator
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from diffsplit.arguments import TINY, are_counts, is_number
from diffsplit.counting import counting
from diffsplit.errors import DivergenceError, InputError
from diffsplit.noise import Generators, check_generators, default_generator
from diffsplit.priors.base import Denoiser, Prior, per_image
from diffsplit.problem import Problem
from diffsplit.solvers.recovery import (
    Answer,
    Callback,
    KeptMemory,
    Recovery,
    State,
    Step,
    Trace,
)

__all__ = ["TINY", "Algorithm", "Solver", "are_counts", "is_number", "zeros_for"]

Algorithm = Generator[State, None, Answer]

STEPS_UNSEEN = 16
"""Steps between two looks at whether the numbers are finite, on a device that a look makes wait."""


def zeros_for(problem: Problem, y: Tensor) -> Tensor:
    """A batch of zero images to go with measurements, in their dtype where that is a float's."""
    dtype = y.dtype if y.is_floating_point() else torch.get_default_dtype()
    return torch.zeros((len(y), *problem.operator.shape_in), dtype=dtype, device=y.device)


class Solver(ABC):
    """An algorithm with its parameters; calling it recovers a batch.

    A subclass is a frozen dataclass with `_solve`, the algorithm, and where they differ from the
    defaults `requires`, `check` and `steps_at_most`.

    Attributes:
        step_fields: the parameters that say how many steps there are, for ``--steps``.
        accepts: operators and channels, in a few words.
        cost: network evaluations with the defaults, and what else takes time, in a few words.
    """

    step_fields: ClassVar[tuple[str, ...]] = ()
    accepts: ClassVar[str] = "any problem"
    cost: ClassVar[str] = "no network"

    def __new__(cls, *fields: object, **named: object) -> Self:
        if fields and isinstance(fields[0], Problem):
            raise InputError(f"build the solver first: {cls.__name__}()(problem, y, prior).")
        return super().__new__(cls)

    @classmethod
    def for_problem(cls, problem: Problem, task: str | None = None, **settings: Any) -> Self:
        """The solver with the settings that suit a problem, as the command line builds it.

        Args:
            task: its name, where it is one of `diffsplit.tasks`.
            settings: parameters to set otherwise.
        """
        return cls(**settings)

    @property
    def requires(self) -> type[Prior] | None:
        """The kind of prior that the algorithm needs; None if it needs none."""
        return Denoiser

    def check(self, problem: Problem, prior: Any) -> None:  # noqa: B027
        """Raise InputError, naming what is missing, where this solver cannot help.

        Args:
            prior: of the kind that `requires` names.
        """

    def steps_at_most(self, problem: Problem) -> int:
        """The most states that a run yields, for progress bars."""
        return 1

    @abstractmethod
    def _solve(self, problem: Problem, y: Tensor, prior: Any, generator: Generators) -> Algorithm:
        """The algorithm."""

    def check_prior(self, prior: object, shape: tuple[int, ...]) -> None:
        """Raise InputError unless ``prior`` is of the kind that is needed, for images of a shape.

        Args:
            prior: whatever the user gave.
            shape: of one image.
        """
        name, needed = type(self).__name__, self.requires
        if not isinstance(prior, Prior):
            if needed is None and prior is None:
                return
            example = prior if isinstance(prior, str) else (needed or Denoiser).example
            raise InputError(
                f"{name} takes a prior, not {type(prior).__name__}; load it with "
                f"ds.load_prior({example!r})."
            )
        if needed is None:
            return
        if not isinstance(prior, needed):
            raise InputError(
                f"{name} needs a {needed.kind}, such as ds.load_prior({needed.example!r}), and "
                f"{type(prior).__name__} is a {prior.kind}."
            )
        if tuple(prior.shape) != tuple(shape):
            raise InputError(
                f"the prior knows images of shape {tuple(prior.shape)}, the measurements are of "
                f"{tuple(shape)}; load a prior of that size."
            )

    def __call__(
        self,
        problem: Problem,
        y: Tensor,
        prior: Prior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Recovery:
        """Recover images from measurements.

        Args:
            problem: the operator and channel that made ``y``.
            y: measurements ``(B, *operator.shape_out)``, on the operator's and prior's device.
            prior: of the kind that `requires` names; ``prior.shape`` is the operator's
                ``shape_in``.
            generator: all randomness comes from it; a sequence of B gives each image its own.
                None stands for `default_generator()`, always the same.
            callback: called after each step with a `Step`.

        Raises:
            InputError: shapes do not fit, ``y`` is not finite, ``prior`` or ``generator`` is none
                or of the wrong kind, or the solver cannot treat the problem.
            DivergenceError: a step gave NaN or infinity.
        """
        if not isinstance(problem, Problem):
            raise InputError(
                f"{type(self).__name__} takes a Problem, its measurements and a prior, in this "
                f"order; the first of them is a {type(problem).__name__}."
            )
        problem.check(y)
        self.check_prior(prior, problem.operator.shape_in)
        if prior is not None and prior.device.type != y.device.type:
            raise InputError(
                f"the measurements are on {y.device} and the prior is on {prior.device}; move one "
                "of them with .to(device)."
            )
        if problem.channel.gaussian_sigma is not None and not y.is_floating_point():
            y = y.to(torch.get_default_dtype())
        generator = default_generator() if generator is None else generator
        check_generators(generator, len(y))
        if callback is not None and not callable(callback):
            raise InputError(f"a callback is a function of a Step, not {callback!r:.40}.")
        self.check(problem, prior)

        memory = KeptMemory()
        traces: dict[int, Trace] = defaultdict(lambda: Trace(problem, y, memory))
        total, index, finite = self.steps_at_most(problem), 0, _Finite(type(self).__name__)
        start = time.perf_counter()
        with torch.no_grad(), counting() as count:
            algorithm = self._solve(problem, y, prior, generator)
            while True:
                try:
                    state = next(algorithm)
                except StopIteration as end:
                    answer: Answer = end.value
                    break
                finite.look(index, state)
                trace = traces[state.walk]
                trace.add(state)
                if callback is not None:
                    sigma = per_image(state.sigma, len(y), state.image)
                    step = Step(
                        index, max(total, index + 1), sigma, state.image, state.consistent, trace
                    )
                    callback(step)
                index += 1
            clip = _to_images if prior is None or self.requires is None else prior.clip
            image = clip(answer.image)
            samples = None if answer.samples is None else clip(answer.samples)
            finite.end(image, samples)
        walks = [traces[walk] for walk in sorted(traces)]
        return Recovery(
            image=image,
            nfe=round(count.network / len(y)),
            operator_calls=round(count.operator / len(y)),
            seconds=time.perf_counter() - start,
            trace=walks[0] if walks else Trace(problem, y),
            samples=samples,
            sample_traces=tuple(traces[walk] for walk in sorted(traces) if walk > 0),
            predicted_error=answer.predicted_error,
            converged=answer.converged,
            reason=answer.reason,
            note=answer.note,
        )


def _to_images(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


class _Finite:
    """Stops a run at the first step that is not finite, without waiting for a GPU at each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first_bad: Tensor | None = None

    def look(self, index: int, state: State) -> None:
        """Note step ``index``; raises DivergenceError here or up to `STEPS_UNSEEN` steps later."""
        # A sum is finite only if all of its terms are, and is found sooner than each of them.
        image, finite = state.image, state.image.sum().isfinite()
        if state.consistent is not None:
            finite = finite & state.consistent.sum().isfinite()
        now = torch.where(finite, -1, index)
        bad = self.first_bad
        self.first_bad = now if bad is None else torch.where(bad >= 0, bad, now)
        if image.device.type == "cpu" or index % STEPS_UNSEEN == STEPS_UNSEEN - 1:
            self._raise()

    def end(self, image: Tensor, samples: Tensor | None) -> None:
        """Check all steps so far, and the answer."""
        self._raise()
        answers = [image] if samples is None else [image, samples]
        if not all(bool(torch.isfinite(answer).all()) for answer in answers):
            raise DivergenceError(self._sentence("its answer"))

    def _raise(self) -> None:
        bad = -1 if self.first_bad is None else int(self.first_bad)
        if bad >= 0:
            raise DivergenceError(self._sentence(f"step {bad + 1}"))

    def _sentence(self, where: str) -> str:
        return (
            f"{self.name} gave NaN or infinity at {where}; check that the prior's answers are "
            "finite, the noise level and the scale of the operator, or use smaller steps."
        )
