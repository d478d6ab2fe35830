"""``diffsplit measure``: an image becomes a measurement file."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from diffsplit.cli.common import check_outputs, generator, one_of
from diffsplit.io.images import load_image
from diffsplit.io.measurements import read_facts, save
from diffsplit.tasks import OPERATORS, TASKS, problem

__all__ = ["TaskName", "measure"]

_KEPT = "; ".join(f"{name}, {task.measured}" for name, task in TASKS.items())
TaskName = Annotated[str, one_of(TASKS, f"What is kept of the image: {_KEPT}.")]


def measure(
    image: Annotated[Path, typer.Argument()],
    output: Annotated[Path, typer.Option("--output", "-o")],
    task: TaskName = "onebit-cs",
    rows: Annotated[int | None, typer.Option(min=1)] = None,
    ratio: Annotated[str | None, typer.Option()] = None,
    sigma: Annotated[float | None, typer.Option(min=0)] = None,
    bits: Annotated[int | None, typer.Option(min=1, max=16)] = None,
    operator: Annotated[str | None, one_of(OPERATORS)] = None,
    fraction: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    std: Annotated[float | None, typer.Option(min=0)] = None,
    size: Annotated[int, typer.Option(min=1, max=4096)] = 64,
    gray: Annotated[bool, typer.Option("--gray")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    force: Annotated[bool, typer.Option("--force")] = False,
) -> None:
    """Measure an image: keep a few bits of it, in a small file.

    Without --gray every image is measured as RGB. The file holds the packed bits and the seed of
    the operator, and nothing else of the image.

    Args:
        image: A PNG, JPEG, WebP, BMP or TIFF file.
        output: The measurement file to write.
        rows: Number of measurements, M.
        ratio: Instead of --rows: measurements per pixel and color, M/N, such as 1/16 or 0.25
            (default 1/16).
        sigma: Standard deviation of the noise, before quantization if there is any, for images on
            [-1, 1] (default: 0.5 for one bit, 0.1 for denoise, 0 otherwise).
        bits: Bits of each measurement (default 4 for the task quantized; a blur, a mask or a
            reduction keeps real numbers).
        operator: For random sums: gaussian, a random matrix, as in the papers (default up to
            64×64); hadamard (default above) or dct, a randomized fast transform; or mask, pixels
            instead.
        fraction: For masks and random inpainting: share of the pixels kept (default 0.5).
        std: Of a Gaussian blur, in pixels (default 3 at a side of 256, 0.75 at 64).
        size: The image is cropped to a square and resized to this side; the bundled priors are
            for 64.
        gray: Measure the brightness alone, for a prior of one color.
        seed: Of the operator and the noise.
        force: Replace an existing file.

    Examples:
        diffsplit measure cat.jpg -o cat.safetensors
        diffsplit measure cat.jpg -o cat.safetensors --rows 4096 --operator hadamard
        diffsplit measure cat.jpg -o cat.safetensors --task onebit-inpainting --fraction 0.3
        diffsplit measure cat.jpg -o cat.safetensors --task quantized --bits 2 --ratio 1/8
        diffsplit measure cat.jpg -o cat.safetensors --task motion-deblur --sigma 0.05
        diffsplit measure cat.jpg -o cat.safetensors --task super-resolution --bits 1 --sigma 0.3
    """
    check_outputs([(output, ())], [image], force)
    x = load_image(image, size, channels=1 if gray else 3)
    measured = problem(
        task,
        x.shape[1:],
        rows=rows,
        ratio=None if ratio is None else _number(ratio),
        sigma=sigma,
        bits=bits,
        operator=operator,
        fraction=fraction,
        std=std,
        seed=seed,
        images=x,
    )
    y = measured.measure(x, generator=generator(seed, "measure"))
    save(output, measured, y, {"task": task})

    facts = read_facts(output)
    count = y[0].numel()
    print(
        f"{output}: {count:,} measurements of {facts['bits']} bit{'s' * (facts['bits'] > 1)} each, "
        f"{count * facts['bits'] / size**2:.3g} bits per pixel of the {size}×{size} image\n"
        f"{facts['payload_bytes']:,} bytes of measurements in a file of {facts['file_bytes']:,}"
    )


def _number(text: str) -> float:
    """A number such as 0.25 or 1/16; NaN, which the task refuses, if it is none."""
    try:
        return float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan
