"""The loop that all training shares: steps, checkpoints, and what a person sees meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.files import atomic_write
from diffsplit.io.images import save_image
from diffsplit.training.config import RunConfig
from diffsplit.training.pictures import Pictures, portion
from diffsplit.training.run import Run, read_checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CHECKPOINT", "accelerated", "fit", "opened", "split"]

CHECKPOINT = "checkpoint.pt"


def accelerated(cpu: bool) -> Accelerator:
    """Device and bf16 precision, or a MissingDependencyError without the extra ``train``."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError(
            "training needs accelerate and matplotlib: pip install 'diffsplit[train]'"
        ) from error
    return Accelerator(mixed_precision="bf16", cpu=cpu)


def opened(out: Path, checkpoint: Path, config: RunConfig, resume: bool) -> dict[str, Any] | None:
    """The state to resume from, if any.

    Raises:
        InputError: ``out`` is a file, or holds files and ``resume`` is False; there is no
            checkpoint to resume, or ``config`` differs in more than may change.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a folder.")
    if resume:
        state = read_checkpoint(checkpoint, type(config))
        config.changes(state["config"])
        return state
    if checkpoint.exists():
        raise InputError(f"{out}: holds a started run; add --resume or choose another folder.")
    if not all(path.is_dir() for path in out.rglob("*")):
        raise InputError(f"{out}: is not empty; give a new folder, so that no file is overwritten.")
    return None


def split(images: Pictures, config: RunConfig) -> tuple[Pictures, Tensor]:
    """Training and validation images; the latter a block at the end, since neighbors are alike."""
    held_out = min(256, max(1, round(len(images) * config.validation)))
    if len(images) - held_out < config.batch:
        raise InputError(
            f"{len(images)} images are too few for batches of {config.batch}; "
            "give more images or a smaller --batch."
        )
    return portion(images, 0, len(images) - held_out), images[-held_out:]


def fit(
    run: Run,
    out: Path,
    folder: Path,
    label: str,
    state: dict[str, Any] | None,
    facts: dict[str, Any] | None,
) -> None:
    """Train, from the start or from a checkpoint, until ``run.config.images`` images were seen.

    Every few minutes, and at the end, ``folder`` gets a checkpoint and pictures, and ``out`` what
    was trained so far. Afterwards the network has its averaged weights.

    Args:
        folder: for the checkpoint and the pictures.
        label: of the progress bar.
        state: of the checkpoint, if the run is resumed.
        facts: further ones for the model card.

    Raises:
        InputError: the run cannot be resumed from ``state``, or the folder cannot be made.
        DivergenceError: a loss or weight is no longer finite; the last checkpoint stays.
    """
    if state is not None:
        run.restore(state, folder / CHECKPOINT)
    run.facts |= facts or {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be created ({error.strerror}); choose another folder."
        ) from error
    config, report = run.config, Reporter(folder, label, run.config.images)
    with report.progress:
        mark = saved = time.monotonic()
        while run.images_seen < config.images:
            report.advance(run.update(), run.images_seen)
            now = time.monotonic()
            run.seconds, mark = run.seconds + now - mark, now
            if now - saved > 60 * config.checkpoint_minutes or run.images_seen >= config.images:
                run.check_finite(report.losses)
                with run.averaged():
                    run.history.append(report.measure(run))
                run.save(folder / CHECKPOINT)
                with run.averaged():
                    run.write(out)
                    report.draw(run)
                mark = saved = time.monotonic()
        run.check_finite(report.losses)
    run.ema.copy_to(run.network.parameters())
    run.network.eval().requires_grad_(False)


class Reporter:
    """Progress of a run on the terminal, and pictures in a folder at every checkpoint.

    Attributes:
        losses: of the steps since the last checkpoint, not yet read from the device.
    """

    def __init__(self, folder: Path, label: str, images: int) -> None:
        self.folder, self.label = folder, label
        self.losses: list[Tensor] = []
        self.console = Console(stderr=True)
        status = TextColumn("images  {task.fields[status]}")
        columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), status
        self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console)
        self.task = self.progress.add_task(label, total=images, status="")

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

        save_image(run.pictures().clamp(-1, 1), self.folder / "samples.png")
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
