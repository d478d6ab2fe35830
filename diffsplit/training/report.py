"""What a person sees of a training run: progress, a loss curve, samples, and a model card."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffsplit.figures import image_grid
from diffsplit.images import atomic_write, from_uint8, save_image
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import measure_error
from diffsplit.solvers.reverse import sample
from diffsplit.training.card import model_card

__all__ = ["WATCHED_SIGMAS", "Reporter"]

WATCHED_SIGMAS = (0.317, 0.552, 0.959, 1.668, 2.899)
"""Noise levels at which message passing usually asks the prior."""


class Reporter:
    """Progress on the terminal, and pictures in a folder at every checkpoint."""

    def __init__(self, folder: Path, batch: int, images: int, validation: Tensor) -> None:
        self.folder = folder
        self.batch = batch
        self.validation = validation
        self.losses: list[Tensor] = []
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images  {task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.progress.add_task("training", total=images, status="")

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

    def advance(self, loss: Tensor, step: int) -> None:
        """Count one step; the loss is read later, so that the device is not waited for."""
        self.losses.append(loss)
        self.progress.update(self.task, completed=step * self.batch)

    def checkpoint(
        self, prior: EDMPrior, step: int, seconds: float, history: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Measure, print and draw; returns the new row of the run's history."""
        images = from_uint8(self.validation[:64]).to(prior.device)
        curve = measure_error(prior, images, WATCHED_SIGMAS, torch.Generator().manual_seed(1))
        row = {
            "images": step * self.batch,
            "seconds": seconds,
            "loss": torch.stack(self.losses).mean().item(),
            "mse": list(curve.mse),
        }
        self.losses.clear()
        errors = " ".join(f"{v:.4f}" for v in curve.mse)
        self.progress.update(self.task, status=f"loss {row['loss']:.3f}  error {errors}")
        if not self.console.is_terminal:
            self.console.print(
                f"{row['images']} images, {seconds:.0f} s, loss {row['loss']:.4f}, error {errors}"
            )
        pictures = sample(prior, 16, 24, torch.Generator().manual_seed(2))
        save_image(image_grid(pictures, columns=8), self.folder / "samples.png")
        _draw_history([*history, row], self.folder / "loss.png")
        return row

    def finish(self, prior: EDMPrior, out: Path, train: Tensor) -> None:
        """Write the model card, with samples beside the training images nearest to them."""
        pictures = sample(prior, 8, 50, torch.Generator().manual_seed(3))
        nearest, distance = nearest_images(pictures, train)
        rows = torch.cat([pictures, nearest.to(pictures)])
        save_image(image_grid(rows, columns=8), out / "samples.png")
        with atomic_write(out / "README.md") as temporary:
            temporary.write_text(model_card(prior, distance), "utf-8")


def nearest_images(pictures: Tensor, train: Tensor) -> tuple[Tensor, list[float]]:
    """The training images nearest to some pictures, mirror images included.

    Args:
        pictures: ``(n, C, H, W)`` on [-1, 1].
        train: bytes ``(N, C, H, W)``.

    Returns:
        The nearest images ``(n, C, H, W)`` on [-1, 1] and their root-mean-square distances.
    """
    candidates = from_uint8(train).flatten(1)
    both = torch.cat([pictures, pictures.flip(-1)]).cpu().flatten(1)
    distance = torch.cdist(both, candidates) / candidates.shape[1] ** 0.5
    best, index = distance.min(1)
    n = len(pictures)
    mirrored = best[n:] < best[:n]
    plain, flipped = candidates[index[:n]], candidates[index[n:]]
    nearest = torch.where(
        mirrored.view(-1, 1, 1, 1),
        flipped.view(pictures.shape).flip(-1),
        plain.view(pictures.shape),
    )
    return nearest, torch.minimum(best[:n], best[n:]).tolist()


def _draw_history(history: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    images = [row["images"] for row in history]
    left.plot(images, [row["loss"] for row in history])
    left.set(xlabel="training images seen", ylabel="weighted training loss", yscale="log")
    for i, sigma in enumerate(WATCHED_SIGMAS):
        right.plot(images, [row["mse"][i] for row in history], label=f"σ = {sigma}")
    right.set(xlabel="training images seen", ylabel="validation error", yscale="log")
    right.legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
