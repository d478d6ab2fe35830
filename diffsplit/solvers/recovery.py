"""What a solver shows while it runs, and what it answers: the image, what it cost, how it went."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diffsplit.counting import uncounted
from diffsplit.errors import InputError
from diffsplit.io.files import atomic_write
from diffsplit.priors.base import per_image
from diffsplit.problem import Problem
from diffsplit.solvers.intervals import (
    Factor,
    check_level,
    factor_at,
    rounding,
    student_quantile,
)

__all__ = ["Answer", "Callback", "Recovery", "State", "Step", "Trace"]

KEPT_BYTES = 2**28
"""The most memory that a run spends on images whose misfit nobody has asked for yet."""


@dataclass(frozen=True)
class State:
    """What an algorithm yields after each step. Its tensors are not written to afterwards.

    Attributes:
        sigma: noise level, a number or one per image ``(B,)``.
        image: the current estimate x̂ ``(B, *shape)``.
        numbers: further columns of the trace, each ``(B,)``.
        consistent: in DCDP x_k ``(B, *shape)``, see `Step`.
        walk: 0 for the estimate; posterior samples are walks 1, 2, ….
    """

    sigma: float | Tensor
    image: Tensor
    numbers: dict[str, Tensor] = field(default_factory=dict)
    consistent: Tensor | None = None
    walk: int = 0


@dataclass(frozen=True)
class Answer:
    """What an algorithm returns at its end.

    Attributes:
        image: ``(B, *shape)``.
        samples: posterior samples ``(S, B, *shape)``, if it draws any.
        predicted_error: mean squared error per entry of ``image`` ``(B,)``, if it knows it.
        converged: whether each image reached a fixed point ``(B,)``, if there is one.
        reason: why it ended, or what is wrong, in a sentence.
        note: what the method assumed that the problem did not say, in a sentence.
    """

    image: Tensor
    samples: Tensor | None = None
    predicted_error: Tensor | None = None
    converged: Tensor | None = None
    reason: str = ""
    note: str = ""


@dataclass
class KeptMemory:
    """Bytes of the images whose misfit nobody has asked for yet, of all traces of a run."""

    taken: int = 0


def _size(state: State) -> int:
    return state.image.nbytes + (0 if state.consistent is None else state.consistent.nbytes)


class Trace:
    """Per-step, per-image numbers: ``trace["sigma"]`` is ``(steps, B)``.

    Columns that every solver has: ``sigma`` (noise level) and ``misfit`` (−log p(y | A x̂), summed
    over the measurements, or ½‖A x̂ − y‖² where these are noiseless); with quantized channels
    ``sign_consistency``. Solvers add their own, such as ``predicted_error`` of `DiffEP`.

    The misfit costs an application of A, so it is computed when somebody looks.
    `keys` and `items` go through the columns as those of a dict do; the length counts the steps.

    Args:
        problem, y: what the misfit is measured with; None for a trace of ``numbers`` alone.
        memory: shared by the traces of one run.
    """

    def __init__(
        self,
        problem: Problem | None = None,
        y: Tensor | None = None,
        memory: KeptMemory | None = None,
    ) -> None:
        self._problem, self._y = problem, y
        self._memory = KeptMemory() if memory is None else memory
        self._rows: list[dict[str, Tensor]] = []
        self._unseen: dict[int, State] = {}

    def add(self, state: State) -> None:
        """Note one step."""
        index = len(self._rows)
        sigma = per_image(state.sigma, len(state.image), state.image)
        self._rows.append({"sigma": sigma, **state.numbers})
        if self._problem is not None:
            self._unseen[index] = state
            self._memory.taken += _size(state)
            if self._memory.taken > KEPT_BYTES:
                self._look()

    @torch.no_grad()
    @uncounted()
    def _look(self) -> None:
        """Compute what was put off, and drop the images."""
        problem, y = self._problem, self._y
        for index, state in self._unseen.items():
            assert problem is not None
            assert y is not None
            row = self._rows[index]
            s = problem.operator.apply(state.image)
            row["misfit"] = problem.channel.misfit(s, y).flatten(1).sum(1)
            if state.consistent is not None:
                row["misfit_consistent"] = problem.misfit(state.consistent, y)
            agreement = problem.channel.sign_agreement(s, y)
            if agreement is not None:
                row["sign_consistency"] = agreement.flatten(1).mean(1)
        self._memory.taken -= sum(map(_size, self._unseen.values()))
        self._unseen.clear()

    @property
    def rows(self) -> list[dict[str, Tensor]]:
        """One dict a step, each value ``(B,)``."""
        self._look()
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0]) if self._rows else []

    def __repr__(self) -> str:
        return f"Trace({len(self)} steps, columns={self.columns})"

    def __getitem__(self, column: str) -> Tensor:
        if column not in self.columns:
            known = ", ".join(self.columns) or "none, since no step was taken"
            raise InputError(f"the trace has no column {column!r}; there are {known}.")
        return torch.stack([row[column].detach().cpu() for row in self.rows])

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def keys(self) -> list[str]:
        """The names of the columns."""
        return self.columns

    def items(self) -> list[tuple[str, Tensor]]:
        """Each name with its column ``(steps, B)``."""
        return [(column, self[column]) for column in self.columns]

    def write_csv(self, path: Path) -> None:
        """One line a step and image, with a header."""
        values = {column: self[column].tolist() for column in self.columns}
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "image", *self.columns])
            for step in range(len(self)):
                for image in range(len(values[self.columns[0]][step])):
                    row = [values[column][step][image] for column in self.columns]
                    writer.writerow([step, image, *row])


@dataclass(frozen=True)
class Step:
    """What a callback sees after each step.

    Attributes:
        index: 0 for the first step of the run.
        total: the most steps there will be, those of posterior samples included.
        sigma: noise level of the step, one per image ``(B,)``.
        image: the current estimate ``(B, *shape)``; while samples are drawn, one sample.
        consistent: in DCDP x_k ``(B, *shape)``, which the measurements made and no prior has
            purified yet; it may leave [-1, 1]. ``image`` is v_k. Elsewhere None.
        trace: of the walk that the step belongs to, which ends with this step.
    """

    index: int
    total: int
    sigma: Tensor
    image: Tensor
    consistent: Tensor | None
    trace: Trace

    @property
    def numbers(self) -> dict[str, Tensor]:
        """The row of the trace that the step adds, each ``(B,)``."""
        return self.trace.rows[-1]


Callback = Callable[[Step], None]


@dataclass(frozen=True)
class Recovery:
    """The answer to ``solver(problem, y, prior)``.

    Attributes:
        image: the recovered images ``(B, *shape)`` on [-1, 1].
        nfe: network evaluations per image.
        operator_calls: applications of A and Aᵀ per image; A Aᵀ counts as two, stored or not, and
            the misfits of the trace are not counted.
        seconds: wall time for the batch.
        trace: per-step numbers.
        samples: posterior samples ``(S, B, *shape)``, where the solver draws any.
        std: standard deviation of the error per entry ``(B, *shape)``, from two samples on; the
            mean of its square is ``predicted_error``, where that is known.
        sample_traces: one trace for each walk that drew samples.
        predicted_error: the solver's own estimate of the mean squared error per entry of the image
            ``(B,)``, where it has one.
        converged: whether each image reached the method's fixed point ``(B,)`` bool; None where
            the method has none.
        reason: what is wrong with the images that did not converge, in a sentence; else "".
        note: what the method assumed that the problem did not say, such as that bits are numbers,
            in a sentence; else "".
        interval_factor: by which intervals are widened, see `uncertainty.calibrate`.
        bounds: the range that every entry of a clean image lies in, if there is one.
    """

    image: Tensor
    nfe: int
    operator_calls: int
    seconds: float
    trace: Trace
    samples: Tensor | None = None
    std: Tensor | None = None
    sample_traces: tuple[Trace, ...] = ()
    predicted_error: Tensor | None = None
    converged: Tensor | None = None
    reason: str = ""
    note: str = ""
    interval_factor: Factor = 1.0
    bounds: tuple[float, float] | None = None

    def half_width(self, level: float = 0.9) -> Tensor:
        """Half of the interval before its limits: Student's quantile times ``std``.

        Neither `interval_factor` nor the least width is in it.

        Raises:
            InputError: there are fewer than two samples, or ``level`` is not between 0 and 1.
        """
        check_level(level)
        if self.samples is None or self.std is None:
            raise InputError(
                "intervals are made of two posterior samples or more, and this recovery has fewer; "
                "draw samples=8 with a solver that can, such as DiffEP(samples=8)."
            )
        return student_quantile(level, len(self.samples) - 1) * self.std

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Bounds that hold each entry of the true image with probability ``level``, on average.

        They lie `half_width` times `interval_factor` from ``image``, at least half a gray level,
        and inside ``bounds``.

        Args:
            level: between 0 and 1. A factor from `uncertainty.calibrate` is fitted for one level.

        Returns:
            The lower and the upper bounds, each ``(B, *shape)``.

        Raises:
            InputError: there are fewer than two samples, or ``level`` is not between 0 and 1.
        """
        half = self.half_width(level)
        assert self.std is not None  # half_width saw to it
        half = (factor_at(self.interval_factor, self.std) * half).clamp(min=rounding(self.bounds))
        low, high = self.image - half, self.image + half
        if self.bounds is None:
            return low, high
        return low.clamp(*self.bounds), high.clamp(*self.bounds)

    def __repr__(self) -> str:
        samples = None if self.samples is None else tuple(self.samples.shape)
        converged = "" if self.converged is None else f"converged={self.converged.tolist()}, "
        return (
            f"Recovery(image={tuple(self.image.shape)}, nfe={self.nfe}, "
            f"seconds={self.seconds:.1f}, {converged}samples={samples}, "
            f"trace={self.trace.columns})"
        )
