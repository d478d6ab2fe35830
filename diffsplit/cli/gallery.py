"""What a demo collects: pictures for its figure, and rows for its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffsplit.cli.common import generator, progress
from diffsplit.cli.report import Row

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.priors.base import Prior
    from diffsplit.problem import Problem
    from diffsplit.solvers.base import Solver
    from diffsplit.solvers.recovery import Recovery

__all__ = ["Gallery"]


@dataclass
class Gallery:
    """One batch of images, measured once and recovered in many ways.

    Attributes:
        truth: the images ``(B, C, H, W)`` on [-1, 1].
        problem: what was done to them.
        y: their measurements, on the device that computes.
        prior: the diffusion model of the methods that do not bring their own.
        seed: of the command line.
        pictures: label and images ``(B, C, H, W)`` on the CPU, from top to bottom.
        rows: of the table.
    """

    truth: Tensor
    problem: Problem
    y: Tensor
    prior: Prior
    seed: int
    pictures: list[tuple[str, Tensor]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def show(self, label: str, images: Tensor) -> None:
        """Add a line of pictures."""
        self.pictures.append((label, images.cpu()))

    def note(self, method: str, images: Tensor, nfe: int, seconds: float) -> None:
        """Add a row to the table, a mean over ``images`` ``(B or S·B, C, H, W)``."""
        times = len(images) // len(self.y)  # samples follow each other, each a batch
        truth = self.truth.repeat(times, 1, 1, 1)
        y = self.y.repeat(times, *(1,) * (self.y.ndim - 1))
        self.rows.append(Row.of(method, self.problem, y, images, truth, nfe, seconds))

    def solve(self, solver: Solver, label: str, prior: Prior | None = None) -> Recovery:
        """Run a method, with a progress bar and the same random numbers each time."""
        g = generator(self.seed, "recover")
        with progress(label) as advance:
            return solver(self.problem, self.y, prior or self.prior, generator=g, callback=advance)

    def recover(
        self, solver: Solver, label: str, prior: Prior | None = None, name: str | None = None
    ) -> None:
        """Run a method, show its pictures and note how good they are.

        Args:
            name: in the table, the label itself if None.
        """
        result = self.solve(solver, label, prior)
        self.show(label, result.image)
        self.note(name or label, result.image, result.nfe, result.seconds)

    def recover_samples(self, samples: int) -> None:
        """DiffEP: its mean, one of ``samples`` posterior samples, and where they differ."""
        from diffsplit.plots.figures import std_map
        from diffsplit.solvers import DiffEP

        self.recover(DiffEP(), "DiffEP mean", name="DiffEP, mean")
        drawn = self.solve(DiffEP(samples=samples), f"DiffEP, {samples} samples")
        assert drawn.samples is not None
        assert drawn.std is not None
        self.show("DiffEP sample", drawn.samples[0])
        self.show(f"std of\n{samples} samples", std_map(drawn.std))
        images = drawn.samples.flatten(0, 1)
        self.note(f"DiffEP, {samples} samples", images, drawn.nfe, drawn.seconds)
