"""``diffsplit train``: a folder or zip of images becomes a prior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffsplit.errors import InputError

__all__ = ["train"]


def train(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_ZIP", help="Images; subfolders are searched.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prior and the log of its training.")],
    size: Annotated[
        int, typer.Option(min=8, max=1024, help="Images are cropped and resized to this side.")
    ] = 64,
    images: Annotated[
        int, typer.Option(min=1, help="Length of the run: training images seen, repeats counted.")
    ] = 400_000,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.")] = 32,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images to measure the error on; without it 2 % of the training "
            "images are kept out."
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Title of the model card (default: that of the folder).")
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the weights: that of the images, usually."),
    ] = None,
) -> None:
    """Train a diffusion model on your own images, to use as --prior.

    Progress is saved every few minutes: stop the run at any time and continue with --resume. In
    the folder, training/ shows the loss curve and samples as they improve. Needs the extra:
    pip install 'diffsplit\\[train]'.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give the name of a folder.")
    from diffsplit.training import TrainConfig
    from diffsplit.training import train as run

    facts = {"name": name or out.resolve().name, **({"license": license_} if license_ else {})}
    prior = run(
        source,
        out,
        TrainConfig(size=size, images=images, batch=batch),
        resume=resume,
        validation=validation,
        facts=facts,
        cpu=cpu,
    )
    levels, height, width = prior.shape
    print(f"{out}: a prior for {levels}×{height}×{width} images; use it with --prior {out}")
