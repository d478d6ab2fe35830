"""``diffsplit measure``: an image becomes a measurement file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffsplit.cli.common import OperatorKind, check_outputs, generator
from diffsplit.cli.tasks import Task, problem_for

__all__ = ["measure"]


def measure(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP, BMP or TIFF file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The measurement file to write.")],
    task: Annotated[
        Task,
        typer.Option(
            help="onebit-cs keeps the sign of noisy random sums of pixels; logistic the same, "
            "random as in logistic regression; onebit-inpainting the sign of some noisy pixels; "
            "quantized a few bits of each sum. The others keep real numbers: all but a box, some "
            "pixels, an image of a quarter of the side, a blurred one, or a noisy one."
        ),
    ] = Task.onebit_cs,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Number of measurements, M.", show_default=False)
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help="Instead of --rows: measurements per pixel and color, M/N, such as 1/16 or 0.25 "
            "(default 1/16)."
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Standard deviation of the noise, before quantization if there is any, for "
            "images on [-1, 1] (default: 0.5 for one bit, 0.1 for denoise, 0 otherwise).",
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="For the task quantized: bits each (default 4)."),
    ] = None,
    operator: Annotated[
        OperatorKind | None,
        typer.Option(
            help="gaussian: a random matrix, as in the papers; hadamard or dct: a randomized fast "
            "transform, for large images; mask: pixels. Default: gaussian, mask for inpainting."
        ),
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="For a mask and inpaint-random: share of the pixels kept (default 0.5).",
        ),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=1,
            max=4096,
            help="The image is cropped to a square and resized to this side; the bundled priors "
            "are for 64.",
        ),
    ] = 64,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the operator and the noise.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Measure an image: keep a few bits of it, in a small file.

    Grayscale and transparent images become RGB. The file holds the packed bits and the seed of the
    operator, and nothing else of the image.
    """
    check_outputs([(output, ())], [image], force)
    from diffsplit.io.images import load_image
    from diffsplit.io.measurements import read_facts, save

    x = load_image(image, size)
    problem = problem_for(
        x,
        task,
        seed,
        rows=rows,
        ratio=ratio,
        sigma=sigma,
        bits=bits,
        kind=operator,
        fraction=fraction,
    )
    y = problem.measure(x, generator=generator(seed, "measure"))
    save(output, problem, y, {"task": task.value})

    facts = read_facts(output)
    count = y[0].numel()
    print(
        f"{output}: {count:,} measurements of {facts['bits']} bit{'s' * (facts['bits'] > 1)} each, "
        f"{count * facts['bits'] / size**2:.3g} bits per pixel of the {size}×{size} image\n"
        f"{facts['payload_bytes']:,} bytes of measurements in a file of {facts['file_bytes']:,}"
    )
