"""``diffsplit measure``: an image becomes a measurement file."""

from __future__ import annotations

import math
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsplit.cli.common import OperatorKind, build_operator, check_outputs, generator
from diffsplit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplit.channels.base import Channel
    from diffsplit.operators.base import LinearOperator
    from diffsplit.problem import Problem

__all__ = ["Task", "measure"]


class Task(str, Enum):
    """What is done to the image."""

    onebit_cs = "onebit-cs"
    logistic = "logistic"
    onebit_inpainting = "onebit-inpainting"
    quantized = "quantized"


def measure(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP, BMP or TIFF file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The measurement file to write.")],
    task: Annotated[
        Task,
        typer.Option(
            help="onebit-cs keeps the sign of noisy random sums of pixels; logistic the same, "
            "random as in logistic regression; onebit-inpainting the sign of some noisy pixels; "
            "quantized a few bits of each sum."
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
            help="Standard deviation of the noise before quantization, for images on [-1, 1] "
            "(default 0.5; 0 for the task quantized).",
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
        typer.Option(min=0, max=1, help="For a mask: share of the pixels kept (default 0.5)."),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=1, max=4096, help="The image is cropped to a square and resized to this side."
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
    from diffsplit.images import load_image
    from diffsplit.measurement_file import read_facts, save

    x = load_image(image, size)
    problem = _problem(x, task, rows, ratio, sigma, bits, operator, fraction, seed)
    y = problem.measure(x, generator=generator(seed, "measure"))
    save(output, problem, y, {"task": task.value})

    facts = read_facts(output)
    count = y[0].numel()
    print(
        f"{output}: {count:,} measurements of {facts['bits']} bit{'s' * (facts['bits'] > 1)} each, "
        f"{count * facts['bits'] / size**2:.3g} bits per pixel of the {size}×{size} image\n"
        f"{facts['payload_bytes']:,} bytes of measurements in a file of {facts['file_bytes']:,}"
    )


def _problem(
    x: Tensor,
    task: Task,
    rows: int | None,
    ratio: str | None,
    sigma: float | None,
    bits: int | None,
    kind: OperatorKind | None,
    fraction: float | None,
    seed: int,
) -> Problem:
    from diffsplit.problem import Problem

    inpainting = task is Task.onebit_inpainting
    kind = kind or (OperatorKind.mask if inpainting else OperatorKind.gaussian)
    masked = kind is OperatorKind.mask
    if inpainting and not masked:
        raise InputError(
            f"the task {task.value} measures pixels; leave out --operator or use "
            f"--task {Task.onebit_cs.value}."
        )
    if rows is not None and ratio is not None:
        raise InputError("--rows and --ratio say the same thing; give one of them.")
    if masked and (rows is not None or ratio is not None):
        raise InputError("a mask has no --rows or --ratio; choose its pixels with --fraction.")
    if fraction is not None and not masked:
        raise InputError(
            "--fraction belongs to a mask; for other operators give --rows or --ratio."
        )
    if bits is not None and task is not Task.quantized:
        raise InputError("--bits belongs to --task quantized; the other tasks measure one bit.")
    if sigma is not None and task is Task.logistic:
        raise InputError("the task logistic has its own randomness; leave out --sigma.")
    shape = (x.shape[1], x.shape[2], x.shape[3])
    count = rows or max(1, round(_ratio(ratio or "1/16") * math.prod(shape)))
    operator = build_operator(kind, shape, count, 0.5 if fraction is None else fraction, seed)
    return Problem(operator, _channel(x, operator, task, sigma, bits, masked))


def _ratio(text: str) -> float:
    try:
        ratio = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        ratio = math.nan
    if not 0 < ratio <= 64:
        raise InputError(f"--ratio {text:.20}: give a positive number such as 1/16 or 0.25.")
    return ratio


def _channel(
    x: Tensor,
    operator: LinearOperator,
    task: Task,
    sigma: float | None,
    bits: int | None,
    masked: bool,
) -> Channel:
    from diffsplit.channels import Logistic, OneBit, Quantized

    if task is Task.logistic:
        return Logistic()
    if task is not Task.quantized:
        return OneBit(sigma=0.5 if sigma is None else sigma)
    # Sums of pixels are near normal, of variance c̄ · E[x²]: three deviations hold 99.7 % of them.
    limit = 1.0 if masked else 3 * math.sqrt(operator.gram.mean * x.square().mean().item())
    return Quantized(bits=bits or 4, sigma=sigma or 0.0, limit=max(limit, 1e-3))
