"""``diffsplit calibrate``: measure how wrong a prior is at each noise level, and keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffsplit.calibration import calibrate_prior
from diffsplit.cli.common import Device, Seed, device_named, generator
from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, load_images
from diffsplit.priors import Prior, curves_folder, load_prior

__all__ = ["calibrate"]

SHOWN = (0.02, 0.1, 0.5, 2.0, 10.0)
"""Noise levels of the lines that are printed."""


def calibrate(
    prior: Annotated[str, typer.Argument(metavar="PRIOR")],
    images: Annotated[Path | None, typer.Option(metavar="FOLDER_OR_ZIP")] = None,
    count: Annotated[int, typer.Option(min=1)] = 64,
    class_label: Annotated[int | None, typer.Option(min=0)] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT")] = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Measure the error of a prior at each noise level, for the solvers that need it.

    Priors that this library trained come with their error. For others, solvers such as diffep
    spend a second evaluation a step until it was measured once. The error is kept in the folder
    curves of $DIFFSPLIT_HOME, or in ~/.cache/diffsplit/curves, by a hash of the weights, and every
    later use of the same prior finds it there.

    Args:
        prior: A name of `diffsplit priors list`, a folder, a checkpoint or a hub id.
        images: Pictures that the prior was not trained on. Without them it is measured on its own
            samples, which as a rule are easier for it than real pictures are.
        count: So many of the pictures are used.
        class_label: The index of the class, for a prior that knows classes.
        prompt: What the pictures show, for a prior with a text encoder (default: nothing said).

    Examples:
        diffsplit calibrate celebahq-256-ddpm --images faces.zip
        diffsplit calibrate my-diffusers-folder
    """
    place = device_named(device)
    model = load_prior(prior, device=place, class_label=class_label, prompt=prompt)
    pictures = None
    if images is not None:
        pictures = from_uint8(load_images(images, *_form(model, count)))
    curve = calibrate_prior(model, pictures, generator=generator(seed, "calibrate"))
    on = "its own samples, and real pictures are as a rule harder" if images is None else images
    print(f"{prior}: error per pixel and color, measured on {on}")
    for sigma in SHOWN:
        if curve.sigma[0] <= sigma <= curve.sigma[-1]:
            print(f"  noise {sigma:<5g} error {curve(sigma).item():.3g}")
    print(f"It is kept in {curves_folder()}; recover finds it there.")


def _form(prior: Prior, count: int) -> tuple[tuple[int, int], int, int]:
    """Size, number and channels of pictures from files for a prior."""
    if len(prior.shape) != 3 or prior.shape[0] not in (1, 3):
        raise InputError(
            f"--images are read in color or gray, and the prior knows signals of shape "
            f"{tuple(prior.shape)}; use diffsplit.calibration.calibrate_prior in Python."
        )
    channels, height, width = prior.shape
    return (height, width), count, channels
