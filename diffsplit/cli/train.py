"""``diffsplit train``: a folder or zip of images becomes a prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

__all__ = ["train"]


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
        int | None, typer.Option(min=1, help="Images per step; 32 by default.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate, 0.004 by default; lower it if a run diverges."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint in --out, with the options it was started with; "
            "--images and --lr may be given anew.",
        ),
    ] = False,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images to measure the error on, given again with --resume; "
            "without it 2 % of the training images are kept out."
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Title of the model card (default: that of the folder).")
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="License of the weights: that of the images, usually."),
    ] = None,
) -> None:
    """Train a diffusion model on your own images, to use as --prior.

    Progress is saved every few minutes: stop the run at any time and continue with --resume. In
    the folder, training/ shows the loss curve and samples as they improve. Needs the extra:
    pip install 'diffsplit\\[train]'.
    """
    from diffsplit.training import TrainConfig, started_config
    from diffsplit.training import train as run

    given: dict[str, Any] = {"size": size, "images": images, "batch": batch, "lr": lr}
    config = started_config(out) if resume else TrainConfig()
    facts = {"name": name if name or resume else out.resolve().name, "license": license_}
    prior = run(
        source,
        out,
        replace(config, **{key: value for key, value in given.items() if value is not None}),
        resume=resume,
        validation=validation,
        facts={key: value for key, value in facts.items() if value is not None},
        cpu=cpu,
    )
    levels, height, width = prior.shape
    print(f"{out}: a prior for {levels}×{height}×{width} images.")
    print(f"Use it with --prior {quote(str(out))}")
