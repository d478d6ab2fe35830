"""What a person sees of a training run while it goes on: progress, a loss curve, pictures."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffsplit.io.files import atomic_write
from diffsplit.io.images import save_image
from diffsplit.training.run import Run

__all__ = ["Reporter"]


class Reporter:
    """Progress on the terminal, and pictures in a folder at every checkpoint.

    Args:
        folder: where the pictures go; it exists.
        label: what is going on, before the bar.
        images: length of the run in training images seen.

    Attributes:
        losses: of the steps since the last checkpoint, not yet read from the device.
    """

    def __init__(self, folder: Path, label: str, images: int) -> None:
        self.folder, self.label = folder, label
        self.losses: list[Tensor] = []
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn(label),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images  {task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.progress.add_task(label, total=images, status="")

    def __enter__(self) -> Reporter:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def advance(self, loss: Tensor, images_seen: int) -> None:
        """Count one step; the loss is read later, so that the device is not waited for."""
        self.losses.append(loss)
        self.progress.update(self.task, completed=images_seen)

    def measure(self, run: Run) -> dict[str, Any]:
        """Measure and print; returns the new row of the run's history, and forgets the losses."""
        row: dict[str, Any] = {
            "images": run.images_seen,
            "seconds": run.seconds,
            "loss": torch.stack(self.losses).mean().item(),
            "errors": run.errors(),
        }
        self.losses.clear()
        errors = " ".join(f"{v:.4f}" for v in row["errors"])
        self.progress.update(self.task, status=f"loss {row['loss']:.3f}  error {errors}")
        if not self.console.is_terminal:
            self.console.print(
                f"{self.label}: {row['images']} images, {run.seconds:.0f} s, loss "
                f"{row['loss']:.4f}, error {errors}"
            )
        return row

    def draw(self, run: Run) -> None:
        """What the network can do, and the curves of loss and error so far."""
        from matplotlib.figure import Figure

        save_image(run.pictures(), self.folder / "samples.png")
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        images = [row["images"] for row in run.history]
        left.plot(images, [row["loss"] for row in run.history])
        left.set(xlabel="training images seen", ylabel="training loss", yscale="log")
        for i, label in enumerate(run.watched):
            right.plot(images, [row["errors"][i] for row in run.history], label=label)
        right.set(xlabel="training images seen", ylabel="validation error", yscale="log")
        right.legend(fontsize=7)
        with atomic_write(self.folder / "loss.png") as temporary:
            figure.savefig(temporary, dpi=110)
