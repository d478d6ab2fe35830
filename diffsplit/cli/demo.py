"""``diffsplit demo``: pictures are measured and recovered: a figure, a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from diffsplit.cli.common import (
    PICTURES,
    Device,
    Half,
    Seed,
    check_outputs,
    device_named,
    generator,
    one_of,
    precision,
)
from diffsplit.cli.gallery import Gallery
from diffsplit.cli.measure import TaskName
from diffsplit.cli.report import report
from diffsplit.errors import InputError
from diffsplit.io.images import example_cats, example_face, load_image, save_image
from diffsplit.plots import comparison, side_by_side
from diffsplit.priors import load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import DiffEP, DiffOneBit
from diffsplit.tasks import OPERATORS, TASKS, problem

__all__ = ["demo"]

DEFAULT_TASK = "onebit-cs"
CATS = 8
EXAMPLES: dict[tuple[int, ...], tuple[str, Callable[[], Tensor]]] = {
    (3, 64, 64): ("cat", example_cats),
    (3, 256, 256): ("face", example_face),
}
"""What the bundled pictures show, and how to get them."""
RATIO = 1 / 16
"""M/N where the task measures sums of pixels, as in the papers; for 1-bit masks half is kept."""
SIGMA = {"quantized": 0.5, "gaussian-deblur": 0.05, "motion-deblur": 0.05}
"""Where the task itself has none: DiffOneBit descends on noise, and a linear filter undoes a
noiseless blur."""


def demo(
    task: TaskName = DEFAULT_TASK,
    output: Annotated[Path | None, typer.Option("--output", "-o")] = None,
    rows: Annotated[int | None, typer.Option(min=1)] = None,
    sigma: Annotated[float | None, typer.Option(min=0)] = None,
    image: Annotated[list[Path] | None, typer.Option()] = None,
    images: Annotated[int | None, typer.Option(min=1, max=CATS)] = None,
    samples: Annotated[int, typer.Option(min=2, max=100)] = 8,
    operator: Annotated[str | None, one_of(OPERATORS)] = None,
    prior: Annotated[str, typer.Option()] = "cats-64",
    half: Half = False,
    device: Device = "auto",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force")] = False,
) -> None:
    """Measure eight cats that the prior has never seen, one bit at a time, and recover them.

    With --image it takes your own photographs instead, cropped around their middle and resized to
    the size that the prior knows. With the defaults each 64×64 color image is reduced to 768 bits,
    96 bytes, and one of 256×256 to 12,288 bits, 1.5 KB. The figure shows the truth, the
    back-projection Aᵀy or the pixels measured, both solvers, a posterior sample, and where the
    samples differ.

    With the --task of a restoration it shows the measurement, a linear baseline, the versions of
    DCDP that a bundled prior exists for, and DiffEP.

    Args:
        output: The figure to write (default diffsplit-demo.png, or diffsplit-demo-TASK.png with
            --task; under that name an older one is replaced without asking).
        rows: For few bits: measurements of each image (default a sixteenth of its numbers, 768 for
            64×64; for onebit-inpainting half of all).
        sigma: Noise, before quantization if there is any, for images on [-1, 1] (default: 0.5 for
            few bits, 0.1 for denoise, 0.05 for a blur, 0 otherwise).
        image: A photograph of your own, in any format that Pillow reads; give it again for another.
            Pictures are bundled for priors of 64×64 and of 256×256 in color; others need one.
        images: How many of the bundled pictures (default: all, eight cats or one face).
        samples: Posterior samples of each image.
        operator: For random sums: gaussian, hadamard, dct, mask; a mask keeps pixels, as many as
            --rows allow.
        prior: The diffusion model: a bundled name, a folder or a hub id.
        force: Replace an existing figure.

    Examples:
        diffsplit demo
        diffsplit demo --rows 4096 --operator hadamard -o cats.png
        diffsplit demo --task super-resolution
        diffsplit demo --prior faces-256
        diffsplit demo --prior faces-256 --image me.jpg
        diffsplit demo --prior faces-256 --image me.jpg --image you.png --task motion-deblur
    """
    suffix = "" if task == DEFAULT_TASK else f"-{task}"
    target = output or Path(f"diffsplit-demo{suffix}.png")
    check_outputs([(target, PICTURES)], image or [], force or output is None)
    if image and images is not None:
        raise InputError("--images counts the bundled pictures; leave it out beside --image.")
    place = device_named(device)
    model = load_prior(prior, device=place, dtype=precision(half))
    DiffEP().check_prior(model, model.shape)
    truth = _photographs(image, model.shape) if image else _bundled(images or CATS, model.shape)
    measured = _problem(truth, task, rows, sigma, operator, seed)
    y = measured.measure(truth, generator=generator(seed, "measure")).to(place)
    measured.operator.to(place)
    gallery, missing = Gallery(truth, measured, y, model, seed), []
    if measured.channel.outcomes is None:
        missing = gallery.restore(task)
    else:
        gallery.recover(DiffOneBit.for_problem(measured, task), "DiffOneBit")
    gallery.sample(samples)
    height, width = model.shape[-2:]
    save_image(_figure(gallery.pictures, max(1, round(128 / height))), target)
    kind = "photograph" if image else EXAMPLES[tuple(model.shape)][0]
    what = f"{len(truth)} {kind}{'s' * (len(truth) > 1)}"
    report(gallery.rows, title=f"{what} of {height}×{width} pixels, {_facts(measured, task)}")
    if missing:
        print(f"left out, since no bundled prior fits: {', '.join(missing)}")
    print(f"figure: {target}")


def _figure(rows: Sequence[tuple[str, Tensor]], scale: int) -> Tensor:
    """A row a method; of one image alone, all in a row."""
    if len(rows[0][1]) > 1:
        return comparison(rows, scale)
    return side_by_side([(label.replace("\n", " "), images[0]) for label, images in rows], scale)


def _bundled(count: int, shape: tuple[int, ...]) -> Tensor:
    """Bundled pictures, for a prior of their size."""
    if tuple(shape) not in EXAMPLES:
        sizes = " and ".join("×".join(map(str, size)) for size in EXAMPLES)
        raise InputError(
            f"the bundled pictures are of shape {sizes}, and the images of this prior of "
            f"{'×'.join(map(str, shape))}; give photographs of your own with --image."
        )
    return EXAMPLES[tuple(shape)][1]()[:count]


def _photographs(files: Sequence[Path], shape: tuple[int, ...]) -> Tensor:
    """Pictures of the user, as the prior knows images ``(C, H, W)``."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"a photograph is in color or gray, and this prior is for shape {shape}.")
    return torch.cat([load_image(file, (shape[1], shape[2]), shape[0]) for file in files])


def _problem(
    truth: Tensor, task: str, rows: int | None, sigma: float | None, operator: str | None, seed: int
) -> Problem:
    """The task with the demo's own defaults: --rows also for masks, and more noise."""
    fraction = None
    if "rows" in TASKS[task].parameters and rows is None:
        rows = max(1, round(RATIO * math.prod(truth.shape[1:])))
    if rows is not None and (operator == "mask" or task == "onebit-inpainting"):
        fraction, rows = min(1.0, rows / math.prod(truth.shape[1:])), None
    return problem(
        task,
        truth.shape[1:],
        rows=rows,
        sigma=SIGMA.get(task) if sigma is None else sigma,
        operator=operator,
        fraction=fraction,
        seed=seed,
        images=truth,
    )


def _facts(measured: Problem, task: str) -> str:
    """What the title says of the measurements."""
    sigma = getattr(measured.channel, "sigma", None)
    noise = [] if sigma is None else [f"σ = {sigma:g}"]
    outcomes = measured.channel.outcomes
    if outcomes is None:
        return ", ".join([task, *noise])
    bits = math.ceil(math.log2(outcomes))
    count = f"{measured.operator.size_out:,} "
    count += "bits each" if bits == 1 else f"measurements of {bits} bits each"
    return ", ".join([count, *(noise or [task])])
