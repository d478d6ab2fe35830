"""``diffsplit measure``: an image becomes a measurement file."""

from __future__ import annotations

import math
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsplit.cli.common import OperatorKind, build_operator, check_outputs, generator
from diffsplit.cli.restoration import Restoration, restoration_operator
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
    inpaint_box = Restoration.inpaint_box.value
    inpaint_random = Restoration.inpaint_random.value
    super_resolution = Restoration.super_resolution.value
    gaussian_deblur = Restoration.gaussian_deblur.value
    motion_deblur = Restoration.motion_deblur.value
    denoise = Restoration.denoise.value

    @property
    def restoration(self) -> Restoration | None:
        """The task of image restoration that it is, if any."""
        known = self.value in [r.value for r in Restoration]
        return Restoration(self.value) if known else None


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

    shape = (x.shape[1], x.shape[2], x.shape[3])
    if task.restoration is not None:
        others: dict[str, object] = {
            "--rows": rows,
            "--ratio": ratio,
            "--bits": bits,
            "--operator": kind,
        }
        if task is not Task.inpaint_random:
            others["--fraction"] = fraction
        for option, value in others.items():
            if value is not None:
                raise InputError(f"the task {task.value} knows no {option}; leave it out.")
        return _restoration(task.restoration, shape, sigma, fraction, seed)
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
    count = rows or max(1, round(_ratio(ratio or "1/16") * math.prod(shape)))
    operator = build_operator(kind, shape, count, 0.5 if fraction is None else fraction, seed)
    return Problem(operator, _channel(x, operator, task, sigma, bits, masked))


def _restoration(
    task: Restoration,
    shape: tuple[int, int, int],
    sigma: float | None,
    fraction: float | None,
    seed: int,
) -> Problem:
    from diffsplit.channels import GaussianNoise
    from diffsplit.problem import Problem

    operator = restoration_operator(task, shape, 0.5 if fraction is None else fraction, seed)
    if sigma is None:
        sigma = 0.1 if task is Restoration.denoise else 0.0
    return Problem(operator, GaussianNoise(sigma))


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
