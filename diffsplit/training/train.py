"""A training run from images to a saved prior: what is read, when it is saved, how it ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.images import load_images
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import log_grid
from diffsplit.training.config import TrainConfig
from diffsplit.training.report import Reporter
from diffsplit.training.run import Run, read_checkpoint

__all__ = ["TrainConfig", "started_config", "train"]

CHECKPOINT = Path("training", "checkpoint.pt")


def started_config(out: Path) -> TrainConfig:
    """The recipe of the run whose checkpoint is in ``out``, to resume it with.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    return TrainConfig.from_options(read_checkpoint(out / CHECKPOINT)["config"])


def _check_out(out: Path, resume: bool) -> None:
    """Refuse to overwrite: ``out`` is new, or without any file, or the run to resume."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a folder.")
    if resume or all(path.is_dir() for path in out.rglob("*")):
        return
    if (out / CHECKPOINT).exists():
        raise InputError(f"{out}: holds a started run; add --resume or choose another folder.")
    raise InputError(f"{out}: is not empty; give a new folder, so that no file is overwritten.")


def _split(images: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Training and validation images; the latter a block at the end, since neighbors are alike."""
    held_out = min(256, max(1, round(len(images) * config.validation)))
    if len(images) - held_out < config.batch:
        raise InputError(
            f"{len(images)} images are too few for batches of {config.batch}; "
            "give more images or a smaller --batch."
        )
    return images[:-held_out], images[-held_out:]


def _facts(run: Run, source: Path, images: Tensor) -> dict[str, Any]:
    """What the prior says of itself, for its model card."""
    return {
        **run.facts,
        "trained_on": source.name,
        "training_images": len(images),
        "images_seen": run.images_seen,
        "training_seconds": round(run.seconds),
        "recipe": run.config.options(),
        **({"recipe_changes": run.changes} if run.changes else {}),
    }


def train(
    source: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    validation: Path | None = None,
    facts: dict[str, Any] | None = None,
    cpu: bool = False,
) -> EDMPrior:
    """Train a denoiser on a folder or zip of images and save it to ``out``.

    ``out`` gets the prior (see `EDMPrior.save`), a model card ``README.md``, and in ``training/``
    a checkpoint, the loss curve and grids of samples.

    Args:
        source: folder or zip of images; each is cropped to a square and resized.
        out: a new or empty folder; with ``resume`` that of a started run.
        resume: go on from the checkpoint in ``out``, on the same ``source``. Options in
            `CHANGEABLE` may differ, such as a larger ``config.images``; the model card lists what
            was changed and when.
        validation: images to measure the error on; without it the last ones of ``source``.
        facts: what the model card should say of data and license; a resumed run keeps those it
            was started with.
        cpu: stay on the CPU even where there is a GPU.

    Raises:
        InputError: unreadable or too few images, an ``out`` with files in it, no checkpoint to
            resume, or one that does not fit.
        DivergenceError: a loss or weight is no longer finite; the last checkpoint and prior stay.
        MissingDependencyError: the extra ``train`` is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError(
            "training needs accelerate and matplotlib: pip install 'diffsplit[train]'"
        ) from error
    checkpoint = out / CHECKPOINT
    _check_out(out, resume)
    accelerator = Accelerator(mixed_precision="bf16", cpu=cpu)
    state = read_checkpoint(checkpoint) if resume else None
    if state is not None:
        config.changes(state["config"])  # a wrong option is told before the images are read

    images = load_images(source, config.size)
    if validation is None:
        images, held_out = _split(images, config)
    else:
        held_out = load_images(validation, config.size, limit=256)
    run = Run(config, images, accelerator)
    if state is not None:
        run.restore(state, checkpoint)
    run.facts.update(facts or {})
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be created ({error.strerror}); choose another folder."
        ) from error

    with Reporter(checkpoint.parent, config.images, held_out) as report:
        mark = saved = time.monotonic()
        while run.images_seen < config.images:
            report.advance(run.update(images), run.images_seen)
            now = time.monotonic()
            run.seconds, mark = run.seconds + now - mark, now
            if now - saved > 60 * config.checkpoint_minutes or run.images_seen >= config.images:
                run.check_finite(report.losses)
                with run.averaged() as prior:
                    run.history.append(report.measure(prior, run.images_seen, run.seconds))
                run.save(checkpoint)
                with run.averaged() as prior:
                    prior.facts = _facts(run, source, images)
                    prior.save(out)
                    report.draw(prior, run.history)
                mark = saved = time.monotonic()
        run.check_finite(report.losses)
        with run.averaged() as prior:
            prior.facts = _facts(run, source, images)
            prior.curve = report.error(prior, log_grid(config.sigma_min, config.sigma_max, 25))
            prior.save(out)
            report.finish(prior, out, images)
    return EDMPrior.load(out)
