"""``diffsplit train`` and ``diffsplit distill``: images become a prior, a prior a faster one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from diffsplit.errors import InputError

__all__ = ["distill", "train"]


def train(
    source: Annotated[Path, typer.Argument(metavar="FOLDER_OR_ZIP")],
    out: Annotated[Path, typer.Option()],
    size: Annotated[int | None, typer.Option(min=8, max=1024)] = None,
    images: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option()] = None,
    form: Annotated[str | None, typer.Option()] = None,
    channels: Annotated[str | None, typer.Option()] = None,
    patch: Annotated[int | None, typer.Option(min=1)] = None,
    attention: Annotated[int | None, typer.Option(min=0)] = None,
    sigma_min: Annotated[float | None, typer.Option()] = None,
    sigma_max: Annotated[float | None, typer.Option()] = None,
    log_sigma_mean: Annotated[float | None, typer.Option()] = None,
    log_sigma_std: Annotated[float | None, typer.Option()] = None,
    augment: Annotated[float | None, typer.Option()] = None,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    init: Annotated[str | None, typer.Option(metavar="PRIOR")] = None,
    latent: Annotated[bool, typer.Option("--latent")] = False,
    autoencoder_images: Annotated[int | None, typer.Option(min=1)] = None,
    latent_channels: Annotated[int | None, typer.Option(min=1)] = None,
    validation: Annotated[Path | None, typer.Option()] = None,
    cpu: Annotated[bool, typer.Option("--cpu")] = False,
    name: Annotated[str | None, typer.Option()] = None,
    license_: Annotated[str | None, typer.Option("--license")] = None,
) -> None:
    """Train a diffusion model on your own images, to use as --prior.

    Progress is saved every few minutes: stop the run at any time and continue with --resume. In
    the folder, training/ shows the loss curve and samples as they improve. Needs the extra:
    pip install 'diffsplit\\[train]'.

    Args:
        source: Images; subfolders are searched.
        out: New folder for the prior and the log of its training.
        size: Images are cropped and resized to this side; 64 by default.
        images: Length of the run: training images seen, repeats counted; 400000 by default.
        batch: Images per step; 24 by default.
        lr: Peak learning rate, 0.003 by default; lower it if a run diverges.
        form: edm is the usual one; residual, on top of a linear denoiser, learns faster, above all
            at 256×256; gaussian has no network and takes a minute; edm by default.
        channels: Widths of the network from the full resolution down; 64,96,128 by default.
        patch: The network sees squares of this side as one pixel: larger is faster and coarser; 2
            by default, 1 with --latent.
        attention: So many of the coarsest levels have self-attention; 0 by default.
        sigma_min: The least noise that it learns; 0.01 by default.
        sigma_max: The most noise that it learns; 160 by default.
        log_sigma_mean: Where it learns most: the mean of ln σ; -0.4 by default.
        log_sigma_std: How widely: the standard deviation of ln σ; 1.4 by default.
        augment: Chance of an image to be moved, recolored and sharpened at random, so that the
            prior knows more than these images; 0 by default.
        resume: Go on from the checkpoint in --out, with the options it was started with; --images,
            --lr, --augment and those of ln σ may be given anew.
        init: Start from this prior instead of random weights: a bundled name or a folder that this
            command wrote; with --latent a latent one, whose autoencoder is the start.
        latent: Train an autoencoder first, and the diffusion model on its latents: for recover
            --solver dcdp-latent.
        autoencoder_images: With --latent: length of the first run; 120000 by default.
        latent_channels: With --latent: numbers that stand for a square of pixels; 4 by default.
        validation: Folder or zip of images to measure the error on, given again with --resume;
            without it 2 % of the training images are kept out.
        cpu: Use the CPU even if there is a GPU.
        name: Title of the model card (default: that of the folder).
        license_: License of the weights: that of the images, usually.

    Examples:
        diffsplit train cats.zip --out my-cats --size 64 --images 400000
        diffsplit train cats.zip --out my-cats --images 800000 --resume
        diffsplit train dogs.zip --out my-dogs --init cats-64 --images 100000
        diffsplit train faces.zip --out my-faces --size 256 --form residual --patch 4
        diffsplit train cats.zip --out my-latent-cats --latent
    """
    for option, value in (
        ("--autoencoder-images", autoencoder_images),
        ("--latent-channels", latent_channels),
    ):
        if value is not None and not latent:
            raise InputError(f"{option} belongs to --latent; leave it out or add that.")
    widths = None if channels is None else _widths(channels)
    options = _given(
        images=images,
        batch=batch,
        lr=lr,
        form=form,
        channels=widths,
        patch=patch,
        attention=attention,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        log_sigma_mean=log_sigma_mean,
        log_sigma_std=log_sigma_std,
        augment=augment,
    )
    facts = _said(out, resume, name, license_)
    shared: Any = {"resume": resume, "validation": validation, "facts": facts, "cpu": cpu}
    shape: tuple[int, ...]
    if latent:
        from diffsplit.training.autoencoder import AutoencoderConfig
        from diffsplit.training.latent import LATENT_CONFIG, started_latent_config, train_latent

        new = AutoencoderConfig(), LATENT_CONFIG
        first, second = started_latent_config(out) if resume else new
        coder = _given(
            size=size,
            images=autoencoder_images,
            batch=batch,
            lr=lr,
            latent_channels=latent_channels,
        )
        first, second = replace(first, **coder), replace(second, **options)
        shape = train_latent(source, out, first, second, init=init, **shared).shape
    else:
        from diffsplit import training

        config = training.started_config(out) if resume else training.TrainConfig()
        config = replace(config, **options, **_given(size=size))
        shape = training.train(source, out, config, init=init, **shared).shape
    print(f"{out}: a prior for {'×'.join(map(str, shape))} images.")
    solver = "--solver dcdp-latent " if latent else ""
    print(f"Use it with recover {solver}--prior {quote(str(out))}")


def distill(
    prior: Annotated[str, typer.Argument()],
    out: Annotated[Path, typer.Option()],
    data: Annotated[Path | None, typer.Option(metavar="FOLDER_OR_ZIP")] = None,
    images: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option()] = None,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    validation: Annotated[Path | None, typer.Option()] = None,
    cpu: Annotated[bool, typer.Option("--cpu")] = False,
    name: Annotated[str | None, typer.Option()] = None,
    license_: Annotated[str | None, typer.Option("--license")] = None,
) -> None:
    """Distill a diffusion model into a consistency model: clean images in a single evaluation.

    Use the result with recover --solver dcdp --purifier consistency. Progress is saved every few
    minutes: stop at any time and continue with --resume. Needs the extra:
    pip install 'diffsplit\\[train]'.

    Args:
        prior: The teacher: a bundled name, a folder or a hub id.
        out: New folder for the consistency model and the log of its training.
        data: Images to start from, better for restoration; without them it starts from noise alone.
        images: Length of the run: training pairs seen; 100000 by default.
        batch: Pairs per step; 24 by default.
        lr: Peak learning rate, 0.002 by default; lower it if a run diverges.
        resume: Go on from the checkpoint in --out, with the options it was started with; --images
            and --lr may be given anew, PRIOR and --data are given again.
        validation: Folder or zip of images to measure the error on; without it 2 % of --data are
            kept out, or samples of the teacher are used.
        cpu: Use the CPU even if there is a GPU.
        name: Title of the model card (default: that of the folder).
        license_: License of the weights: that of the images, usually.

    Examples:
        diffsplit distill cats-64 --out my-fast-cats --data cats.zip
        diffsplit distill my-cats --out my-fast-cats --images 200000
    """
    from diffsplit.training.distill import DistillConfig, started_distill_config
    from diffsplit.training.distill import distill as run

    config = started_distill_config(out) if resume else DistillConfig()
    config = replace(config, **_given(images=images, batch=batch, lr=lr))
    facts = _said(out, resume, name, license_)
    run(prior, out, config, data=data, validation=validation, resume=resume, facts=facts, cpu=cpu)
    print(f"{out}: a consistency model.")
    print(f"Use it with recover --solver dcdp --purifier consistency --prior {quote(str(out))}")


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def _said(out: Path, resume: bool, name: str | None, license_: str | None) -> dict[str, Any]:
    """What the model card should say; a resumed run goes on saying what it was started with."""
    return _given(name=name if name or resume else out.resolve().name, license=license_)


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 16 or any(width % 16 for width in widths):
        raise InputError(f"--channels {text:.40}: give multiples of 16, such as 64,96,128.")
    return widths
