"""From images to a saved denoiser: what is read, what is written, how a run ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.files import atomic_write
from diffsplit.io.images import load_images, save_image
from diffsplit.plots import image_grid
from diffsplit.priors.base import Denoiser
from diffsplit.priors.load import load_kind
from diffsplit.priors.patched import PatchedDenoiser
from diffsplit.priors.residual import ResidualPrior
from diffsplit.training.card import denoiser_card, nearest_images
from diffsplit.training.config import TrainConfig
from diffsplit.training.denoiser import DenoiserRun, recalled_gaussian
from diffsplit.training.gaussian import fit_gaussian
from diffsplit.training.loop import CHECKPOINT, accelerated, fit, opened, split
from diffsplit.training.pictures import Pictures, load_pictures
from diffsplit.training.run import started

__all__ = ["finish", "load_data", "started_config", "train", "write_card"]


def started_config(out: Path) -> TrainConfig:
    """The recipe of the run whose checkpoint is in ``out``, to resume it with.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    return started(out / "training" / CHECKPOINT, TrainConfig)


def load_data(
    source: Path, config: TrainConfig, validation: Path | None
) -> tuple[Pictures, Tensor]:
    """Training and validation images in bytes ``(N, 3, S, S)``, cropped to squares and resized."""
    images = load_pictures(source, config.size)
    if validation is None:
        return split(images, config)
    return images, load_images(validation, config.size, limit=256)


def write_card(out: Path, card: str, picture: Tensor) -> None:
    """The model card, and a picture ``(C, H, W)`` of samples."""
    save_image(picture.clamp(-1, 1), out / "samples.png")
    with atomic_write(out / "README.md") as temporary:
        temporary.write_text(card, "utf-8")


def finish(
    run: DenoiserRun, out: Path, images: Pictures, card: Callable[[list[float]], str]
) -> None:
    """Measure and save what was trained, with a model card and samples.

    Args:
        images: of the training, in bytes; the nearest ones are shown below the samples.
        card: from the distance of each sample to its nearest training image.
    """
    run.measure_curve()
    run.write(out)
    pictures = run.samples(8, 50, seed=3)
    nearest, distances = nearest_images(pictures, images)
    both = torch.cat([pictures, nearest.to(pictures)])
    write_card(out, card(distances), image_grid(both, columns=8))


def _network_of(init: Path | str, config: TrainConfig) -> tuple[PatchedDenoiser, TrainConfig]:
    """The prior to start from, and the recipe for its network."""
    prior = load_kind(PatchedDenoiser, init)  # type: ignore[type-abstract]
    if prior.shape[-1] != config.size:
        raise InputError(
            f"{init}: training starts from a prior of `diffsplit train` for {config.size}×"
            f"{config.size} images; give such a folder, or leave out --init."
        )
    network = prior.unet.config
    levels = sum("Attn" in kind for kind in network.down_block_types)
    return prior, replace(
        config,
        form="residual" if isinstance(prior, ResidualPrior) else "edm",
        channels=tuple(network.block_out_channels),
        attention=max(levels, config.attention),
        patch=prior.patch,
        sigma_min=prior.sigma_min,
        sigma_max=prior.sigma_max,
    )


def train(
    source: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    init: Path | str | None = None,
    validation: Path | None = None,
    facts: dict[str, Any] | None = None,
    cpu: bool = False,
) -> Denoiser:
    """Train a denoiser on a folder or zip of images and save it to ``out``.

    ``out`` gets the prior (see `PatchedUNet.save`), a model card ``README.md``, and in
    ``training/`` a checkpoint, the loss curve and grids of samples.

    Args:
        source: folder or zip of images; each is cropped to a square and resized.
        out: a new or empty folder; with ``resume`` that of a started run.
        resume: go on from the checkpoint in ``out``, on the same ``source``. Options in
            `RunConfig.CHANGEABLE` may differ, such as a larger ``config.images``; the model card
            lists what was changed and when.
        init: name or folder of a prior of ours to start from instead of random weights; the
            form and network are then that prior's, whatever ``config`` says of them, except that
            it may get more attention.
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
    folder = out / "training"
    if config.form == "gaussian":
        if init is not None:
            raise InputError("a Gaussian starts from no prior; leave out --init, or take a form.")
        opened(out, folder / CHECKPOINT, config, resume)
        data = load_data(source, replace(config, batch=2), validation)  # it has no batches
        return fit_gaussian(*data, out, config, source.name, facts)
    accelerator = accelerated(cpu)
    state = opened(out, folder / CHECKPOINT, config, resume)
    start = None
    if init is not None and state is None:
        start, config = _network_of(init, config)

    images, held_out = load_data(source, config, validation)
    gaussian = None if state is None else recalled_gaussian(config, state)
    run = DenoiserRun(config, images, held_out, accelerator, start, gaussian)
    run.facts |= {"trained_on": source.name, "training_images": len(images)}
    if start is not None and init is not None:
        run.facts |= {"started_from": str(start.facts.get("name", Path(init).name))}
    fit(run, out, folder, "training", state, facts)
    finish(run, out, images, lambda distances: denoiser_card(run.prior, distances))
    return type(run.prior).load(out)
