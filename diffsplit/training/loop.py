"""The loop that all training shares: steps, checkpoints, pictures on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.training.config import RunConfig
from diffsplit.training.report import Reporter
from diffsplit.training.run import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["CHECKPOINT", "accelerated", "check_out", "fit", "split"]

CHECKPOINT = "checkpoint.pt"


def accelerated(cpu: bool) -> Accelerator:
    """Device and bf16 precision.

    Raises:
        MissingDependencyError: the extra ``train`` is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError(
            "training needs accelerate and matplotlib: pip install 'diffsplit[train]'"
        ) from error
    return Accelerator(mixed_precision="bf16", cpu=cpu)


def check_out(out: Path, checkpoint: Path, resume: bool) -> None:
    """Refuse to overwrite: ``out`` is new, or without any file, or the run to resume."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a folder.")
    if resume or all(path.is_dir() for path in out.rglob("*")):
        return
    if checkpoint.exists():
        raise InputError(f"{out}: holds a started run; add --resume or choose another folder.")
    raise InputError(f"{out}: is not empty; give a new folder, so that no file is overwritten.")


def split(images: Tensor, config: RunConfig) -> tuple[Tensor, Tensor]:
    """Training and validation images; the latter a block at the end, since neighbors are alike."""
    held_out = min(256, max(1, round(len(images) * config.validation)))
    if len(images) - held_out < config.batch:
        raise InputError(
            f"{len(images)} images are too few for batches of {config.batch}; "
            "give more images or a smaller --batch."
        )
    return images[:-held_out], images[-held_out:]


def fit(run: Run, out: Path, folder: Path, label: str = "training") -> None:
    """Train until ``run.config.images`` images were seen.

    Every few minutes, and at the end, ``folder`` gets a checkpoint and pictures, and ``out`` what
    was trained so far. Afterwards the network has its averaged weights.

    Args:
        folder: for the checkpoint and the pictures.
        label: of the progress bar.

    Raises:
        InputError: the folder cannot be made.
        DivergenceError: a loss or weight is no longer finite; the last checkpoint stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be created ({error.strerror}); choose another folder."
        ) from error
    config = run.config
    with Reporter(folder, label, config.images) as report:
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
