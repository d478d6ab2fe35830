"""What a solver answers: the image, what it cost, and how it went."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.files import atomic_write

__all__ = ["Callback", "Recovery", "Step", "Trace"]


@dataclass(frozen=True)
class Step:
    """What a callback sees after each step.

    Attributes:
        index: 0 for the first step.
        total: the most steps there will be.
        sigma: noise level of the step, one per image ``(B,)``.
        image: the current estimate ``(B, *shape)``.
        numbers: the row of the trace that the step adds, each ``(B,)``.
        consistent: in DCDP x_k ``(B, *shape)``, which the measurements made and no prior has
            purified yet; it may leave [-1, 1]. ``image`` is v_k. Elsewhere None.
    """

    index: int
    total: int
    sigma: Tensor
    image: Tensor
    numbers: dict[str, Tensor]
    consistent: Tensor | None = None


Callback = Callable[[Step], None]


@dataclass
class Trace:
    """Per-step, per-image numbers: ``trace["sigma"]`` is ``(steps, B)``.

    Columns that every solver writes: ``sigma`` (noise level), ``misfit`` (−log p(y | A x̂), summed
    over the measurements); with quantized channels ``sign_consistency``. `DiffEP` adds
    ``predicted_error``, its own estimate of the error per entry of x̂, where it passes messages.

    `keys` and `items` go through the columns as those of a dict do; the length counts the steps.
    """

    rows: list[dict[str, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []

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
class Recovery:
    """The answer to ``solver(problem, y, prior)``.

    Attributes:
        image: the recovered images ``(B, *shape)`` on [-1, 1].
        nfe: network evaluations per image.
        operator_calls: applications of A and Aᵀ per image; A Aᵀ counts as two, stored or not.
        seconds: wall time for the batch.
        trace: per-step numbers.
        samples: posterior samples ``(S, B, *shape)``, where the solver draws any.
        std: standard deviation per entry over the samples ``(B, *shape)``, from two samples on.
    """

    image: Tensor
    nfe: int
    operator_calls: int
    seconds: float
    trace: Trace
    samples: Tensor | None = None
    std: Tensor | None = None

    def __repr__(self) -> str:
        samples = None if self.samples is None else tuple(self.samples.shape)
        return (
            f"Recovery(image={tuple(self.image.shape)}, nfe={self.nfe}, "
            f"seconds={self.seconds:.1f}, samples={samples}, trace={self.trace.columns})"
        )
