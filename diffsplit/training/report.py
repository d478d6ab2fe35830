"""What a person sees of a training run: progress, a loss curve, samples, and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffsplit.errors import DivergenceError, InputError
from diffsplit.figures import image_grid
from diffsplit.files import atomic_write
from diffsplit.images import from_uint8, save_image
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import ErrorCurve, measure_error
from diffsplit.solvers.reverse import sample
from diffsplit.training.card import model_card

__all__ = ["WATCHED_SIGMAS", "Reporter"]

WATCHED_SIGMAS = (0.317, 0.552, 0.959, 1.668, 2.899)
"""Noise levels at which message passing usually asks the prior."""
CHUNK = 1000
"""Training images that are compared with the samples at once, as floats."""


class Reporter:
    """Progress on the terminal, and pictures in a folder at every checkpoint.

    Args:
        folder: where the pictures go; it exists.
        images: length of the run in training images seen.
        validation: bytes ``(n, C, H, W)`` to measure the error on.

    Attributes:
        losses: of the steps since the last checkpoint, not yet read from the device.
    """

    def __init__(self, folder: Path, images: int, validation: Tensor) -> None:
        self.folder = folder
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

    def advance(self, loss: Tensor, images_seen: int) -> None:
        """Count one step; the loss is read later, so that the device is not waited for."""
        self.losses.append(loss)
        self.progress.update(self.task, completed=images_seen)

    def error(
        self, prior: EDMPrior, sigmas: Sequence[float], limit: int | None = None
    ) -> ErrorCurve:
        """v(σ) on the first ``limit`` validation images, or all; always with the same noise.

        Raises:
            DivergenceError: an error is not finite, or none at all.
        """
        images = from_uint8(self.validation[:limit]).to(prior.device)
        try:
            return measure_error(prior, images, sigmas, torch.Generator().manual_seed(1))
        except InputError as error:
            raise DivergenceError(
                "the denoiser's error on the validation images is not positive and finite at "
                f"every noise level from {min(sigmas):.3g} to {max(sigmas):.3g}; train with a "
                "smaller learning rate, or give other validation images."
            ) from error

    def measure(self, prior: EDMPrior, images_seen: int, seconds: float) -> dict[str, Any]:
        """Measure and print; returns the new row of the run's history, and forgets the losses."""
        curve = self.error(prior, WATCHED_SIGMAS, 64)
        row = {
            "images": images_seen,
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
        return row

    def draw(self, prior: EDMPrior, history: list[dict[str, Any]]) -> None:
        """Sixteen samples, and the curves of loss and error so far."""
        pictures = sample(prior, 16, 24, torch.Generator().manual_seed(2))
        save_image(image_grid(pictures, columns=8), self.folder / "samples.png")
        _draw_history(history, self.folder / "loss.png")

    def finish(self, prior: EDMPrior, out: Path, train: Tensor) -> None:
        """Write the model card, and samples above the training images nearest to them.

        Args:
            out: folder of the prior.
            train: bytes ``(N, C, H, W)``.
        """
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
    both = torch.cat([pictures, pictures.flip(-1)]).cpu().flatten(1)
    best = torch.full((len(both),), torch.inf)
    index = torch.zeros(len(both), dtype=torch.long)
    for start in range(0, len(train), CHUNK):
        candidates = from_uint8(train[start : start + CHUNK]).flatten(1)
        distance, place = (torch.cdist(both, candidates) / both.shape[1] ** 0.5).min(1)
        index = torch.where(distance < best, start + place, index)
        best = torch.minimum(best, distance)
    found = from_uint8(train[index])
    n = len(pictures)
    mirrored = best[n:] < best[:n]
    nearest = torch.where(mirrored.view(-1, 1, 1, 1), found[n:].flip(-1), found[:n])
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
