"""``diffsplit train``: a folder or zip of images becomes a prior, of pixels or of latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from diffsplit.errors import InputError

__all__ = ["CardLicense", "CardName", "CpuOnly", "given", "said", "train"]


CpuOnly = Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")]
CardName = Annotated[
    str | None, typer.Option(help="Title of the model card (default: that of the folder).")
]
CardLicense = Annotated[
    str | None,
    typer.Option("--license", help="License of the weights: that of the images, usually."),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def said(out: Path, resume: bool, name: str | None, license_: str | None) -> dict[str, Any]:
    """What the model card should say; a resumed run goes on saying what it was started with."""
    return given(name=name if name or resume else out.resolve().name, license=license_)


def train(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_ZIP", help="Images; subfolders are searched.")
    ],
    out: Annotated[
        Path, typer.Option(help="New folder for the prior and the log of its training.")
    ],
    size: Annotated[
        int | None,
        typer.Option(
            min=8, max=1024, help="Images are cropped and resized to this side; 64 by default."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Length of the run: training images seen, repeats counted; 400000 by default.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per step; 24 by default.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate, 0.003 by default; lower it if a run diverges."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="edm is the usual one; residual learns faster, above all at 256×256; gaussian has "
            "no network and takes a minute; edm by default.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help="Widths of the network from the full resolution down; 64,96,128 by default."
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The network sees squares of this side as one pixel: larger is faster and "
            "coarser; 2 by default, 1 with --latent.",
        ),
    ] = None,
    sigma_min: Annotated[
        float | None, typer.Option(help="The least noise that it learns; 0.01 by default.")
    ] = None,
    sigma_max: Annotated[
        float | None, typer.Option(help="The most noise that it learns; 160 by default.")
    ] = None,
    log_sigma_mean: Annotated[
        float | None,
        typer.Option(help="Where it learns most: the mean of ln σ; -0.4 by default."),
    ] = None,
    log_sigma_std: Annotated[
        float | None, typer.Option(help="How widely: its standard deviation; 1.4 by default.")
    ] = None,
    attention: Annotated[
        int | None,
        typer.Option(
            min=0, help="So many of the coarsest levels have self-attention; 0 by default."
        ),
    ] = None,
    augment: Annotated[
        float | None,
        typer.Option(
            help="Chance of an image to be moved, recolored and sharpened at random, so that the "
            "prior knows more than these images; 0 by default."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint in --out, with the options it was started with; "
            "--images, --lr, --augment and --log-sigma-… may be given anew.",
        ),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="Start from this prior instead of random weights: a bundled name or a folder that "
            "this command wrote.",
        ),
    ] = None,
    latent: Annotated[
        bool,
        typer.Option(
            "--latent",
            help="Train an autoencoder first, and the diffusion model on its latents: for "
            "recover --solver dcdp-latent.",
        ),
    ] = False,
    autoencoder_images: Annotated[
        int | None,
        typer.Option(min=1, help="With --latent: length of the first run; 120000 by default."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images to measure the error on, given again with --resume; "
            "without it 2 % of the training images are kept out."
        ),
    ] = None,
    cpu: CpuOnly = False,
    name: CardName = None,
    license_: CardLicense = None,
) -> None:
    """Train a diffusion model on your own images, to use as --prior.

    Progress is saved every few minutes: stop the run at any time and continue with --resume. In
    the folder, training/ shows the loss curve and samples as they improve. Needs the extra:
    pip install 'diffsplit\\[train]'.
    """
    if latent and init is not None:
        raise InputError("--init starts a model of pixels; leave out --latent or --init.")
    if autoencoder_images is not None and not latent:
        raise InputError("--autoencoder-images belongs to --latent; leave it out or add that.")
    shared: dict[str, Any] = {
        "resume": resume,
        "validation": validation,
        "facts": said(out, resume, name, license_),
        "cpu": cpu,
    }
    run = given(images=images, batch=batch, lr=lr)
    network = given(
        channels=None if channels is None else _widths(channels),
        patch=patch,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        log_sigma_mean=log_sigma_mean,
        log_sigma_std=log_sigma_std,
        form=form,
        attention=attention,
        augment=augment,
    )
    if latent:
        coder = given(size=size, images=autoencoder_images, batch=batch, lr=lr)
        shape = _latent(source, out, coder, {**run, **network}, shared)
    else:
        shape = _pixels(source, out, init, {**run, **network, **given(size=size)}, shared)
    levels, height, width = shape
    print(f"{out}: a prior for {levels}×{height}×{width} images.")
    solver = "--solver dcdp-latent " if latent else ""
    print(f"Use it with recover {solver}--prior {quote(str(out))}")


def _pixels(
    source: Path, out: Path, init: str | None, options: dict[str, Any], shared: dict[str, Any]
) -> tuple[int, ...]:
    from diffsplit.training import TrainConfig, started_config, train

    config = started_config(out) if shared["resume"] else TrainConfig()
    return train(source, out, replace(config, **options), init=init, **shared).shape


def _latent(
    source: Path,
    out: Path,
    coder: dict[str, Any],
    denoiser: dict[str, Any],
    shared: dict[str, Any],
) -> tuple[int, ...]:
    from diffsplit.training.autoencoder import AutoencoderConfig
    from diffsplit.training.latent import LATENT_CONFIG, started_latent_config, train_latent

    first, second = AutoencoderConfig(), LATENT_CONFIG
    if shared["resume"]:
        first, second = started_latent_config(out)
    first, second = replace(first, **coder), replace(second, **denoiser)
    return train_latent(source, out, first, second, **shared).shape


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 16 or any(width % 16 for width in widths):
        raise InputError(f"--channels {text:.40}: give multiples of 16, such as 64,96,128.")
    return widths
