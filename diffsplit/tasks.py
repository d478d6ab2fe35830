"""Named problems, as the papers measure them, for images of any size.

    problem = ds.tasks.problem("super-resolution", (3, 64, 64), sigma=0.05)

Few bits are those of the 1-bit papers: random sums of pixels, M/N = 1/16 and σ = 0.5 unless told
otherwise. Restoration is that of the DCDP paper at 256×256; its lengths in pixels go with the side
of the image, unless ``std`` sets the width of a Gaussian blur. With ``bits`` a few bits are kept of
what is measured:

    problem = ds.tasks.problem("super-resolution", (3, 64, 64), bits=1, sigma=0.3)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.arguments import FAR_OUTSIDE, TINY, are_counts, image_shape, is_number
from diffsplit.channels import Channel, GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
)
from diffsplit.problem import Problem

__all__ = ["OPERATORS", "TASKS", "Task", "problem"]

OPERATORS = ("gaussian", "hadamard", "dct", "mask")
"""What few bits may be measured of: sums by a random matrix or a fast transform, or pixels."""

LARGEST_FOR_MATRIX = 64 * 64
"""Pixels of an image up to which a Gaussian matrix is the default; it has M × N entries."""

LARGEST_IN_FULL = 2**30
"""Entries of a Gaussian matrix up to which it is stored in float32, in at most 4.3 GB; a larger
one, such as the papers' at 256×256, takes half precision."""

MEAN_SQUARE = 0.25
"""E[x²] of natural images on [-1, 1]."""

PAPER_SIDE = 256
BOX, KERNEL, STD = 100, 61, 3.0
"""In pixels of the DCDP paper's images."""


class Task(NamedTuple):
    """A kind of problem.

    Attributes:
        measured: what is kept of the image, in words.
        parameters: the parameters of `problem` that it has, beside ``seed``.
    """

    measured: str
    parameters: tuple[str, ...]


_SUMS = ("rows", "ratio", "operator", "fraction")
_PIXELS = ("sigma", "bits")
TASKS = {
    "onebit-cs": Task("the sign of noisy random sums of pixels", ("sigma", *_SUMS)),
    "logistic": Task("the sign of such sums, random as in logistic regression", _SUMS),
    "onebit-inpainting": Task("the sign of some noisy pixels", ("sigma", "fraction")),
    "quantized": Task("a few bits of each random sum", ("sigma", "bits", *_SUMS)),
    "compressed-sensing": Task("random sums of pixels, as numbers", ("sigma", *_SUMS)),
    "inpaint-box": Task("all but a box in the middle", _PIXELS),
    "inpaint-random": Task("some of the pixels", (*_PIXELS, "fraction")),
    "super-resolution": Task("an image of a quarter of the side", _PIXELS),
    "gaussian-deblur": Task("a blurred image", (*_PIXELS, "std")),
    "motion-deblur": Task("an image of a shaken camera", _PIXELS),
    "denoise": Task("a noisy image", _PIXELS),
}
"""All tasks by name."""


def problem(
    name: str,
    shape: Sequence[int],
    *,
    rows: int | None = None,
    ratio: float | None = None,
    sigma: float | None = None,
    bits: int | None = None,
    operator: str | LinearOperator | None = None,
    fraction: float | None = None,
    std: float | None = None,
    seed: int = 0,
    images: Tensor | None = None,
) -> Problem:
    """The problem of a task.

    Args:
        name: one of `TASKS`.
        shape: of the images, ``(C, H, W)``.
        rows: M, the number of measurements.
        ratio: M/N instead of ``rows``; 1/16 by default.
        sigma: standard deviation of the noise, before quantization if there is any, in the units
            of A x with x on [-1, 1]; by default 0.5 for one bit, 0.1 for "denoise", 0 otherwise.
        bits: of each measurement; 4 by default for "quantized", and real numbers for restoration.
        operator: one of `OPERATORS`; by default "gaussian" for images up to 64×64, "hadamard"
            above. A matrix of more than 2³⁰ entries is stored in half precision. Or an operator
            that is there already, for images of this shape.
        fraction: share of the pixels that a mask keeps; 0.5 by default.
        std: of a Gaussian blur, in pixels; by default 3 at a side of 256, and in proportion.
        seed: of the operator.
        images: ``(B, C, H, W)``, to which the range of a quantizer of sums is fitted; natural
            images by default.

    Raises:
        InputError: an unknown task, a parameter that the task does not have, or one out of range.
    """
    task = TASKS.get(name) if isinstance(name, str) else None
    if task is None:
        raise InputError(f"there is no task {name!r:.40}; choose one of {', '.join(TASKS)}.")
    given: dict[str, object] = {"rows": rows, "ratio": ratio, "sigma": sigma, "bits": bits}
    given |= {"operator": operator, "fraction": fraction, "std": std}
    for parameter, value in given.items():
        if value is not None and parameter not in task.parameters:
            known = ", ".join(task.parameters)
            raise InputError(f"the task {name} has no {parameter}, only {known}; leave it out.")
    size = image_shape(shape)
    if "operator" in task.parameters:
        a = _sums(size, operator, rows, ratio, fraction, seed)
    else:
        a = _pixels(name, size, 0.5 if fraction is None else fraction, std, seed)
    return Problem(a, _channel(name, a, sigma, bits, images))


def _sums(
    shape: tuple[int, int, int],
    operator: str | LinearOperator | None,
    rows: int | None,
    ratio: float | None,
    fraction: float | None,
    seed: int,
) -> LinearOperator:
    """Random sums of pixels, or with the operator "mask" pixels."""
    if isinstance(operator, LinearOperator):
        if tuple(operator.shape_in) != shape or (rows, ratio, fraction) != (None, None, None):
            raise InputError(
                f"an operator of your own is for images of shape {shape}, without rows, ratio and "
                f"fraction; this one takes {tuple(operator.shape_in)}."
            )
        return operator
    if operator is None:
        operator = "gaussian" if shape[1] * shape[2] <= LARGEST_FOR_MATRIX else "hadamard"
    if operator not in OPERATORS:
        raise InputError(f"the operator is one of {', '.join(OPERATORS)}, not {operator!r:.40}.")
    if operator == "mask":
        if rows is not None or ratio is not None:
            raise InputError("a mask has no rows and no ratio; choose its pixels with fraction.")
        return PixelMask(shape, fraction=0.5 if fraction is None else fraction, seed=seed)
    if fraction is not None:
        raise InputError("fraction belongs to the operator mask; here give rows or ratio.")
    if rows is not None and ratio is not None:
        raise InputError("rows and ratio say the same thing; give one of them.")
    if rows is None:
        ratio = 1 / 16 if ratio is None else ratio
        if not 0 < ratio <= 64:
            raise InputError(f"ratio is {ratio}; give a positive number such as 1/16 or 0.25.")
        rows = max(1, round(ratio * math.prod(shape)))
    if not are_counts(rows):
        raise InputError(f"rows is a whole number from 1 up, not {rows!r:.40}.")
    if operator == "gaussian":
        large = rows * math.prod(shape) > LARGEST_IN_FULL
        return GaussianMatrix(shape, rows, seed, torch.float16 if large else torch.float32)
    return RandomizedTransform(shape, rows=rows, seed=seed, transform=operator)


def _pixels(
    name: str, shape: tuple[int, int, int], fraction: float, std: float | None, seed: int
) -> LinearOperator:
    """What is kept of the pixels, blurred or not."""
    height, width = shape[1:]
    scale = min(height, width) / PAPER_SIDE
    if name == "inpaint-box":
        box = max(1, round(BOX * scale))
        return PixelMask.box(shape, (height - box) // 2, (width - box) // 2, box, box)
    if name in ("inpaint-random", "onebit-inpainting"):
        return PixelMask(shape, fraction=fraction, seed=seed)
    if name == "super-resolution":
        return Downsample(shape, 4, "bicubic")
    if name == "denoise":
        return Identity(shape)
    if name == "motion-deblur":
        return Blur.motion(shape, _odd(KERNEL * scale), 0.5, seed)
    most = _odd(min(height, width) - 1)
    std = STD * scale if std is None else std
    if not is_number(std, TINY) or std > most:
        raise InputError(f"std, in pixels, lies above 0 and is at most {most}, not {std!r:.40}.")
    return Blur.gaussian(shape, min(_odd(KERNEL / STD * std), most), std)


def _odd(size: float) -> int:
    """A size near to it that has a middle."""
    return 2 * round((size - 1) / 2) + 1


def _channel(
    name: str,
    operator: LinearOperator,
    sigma: float | None,
    bits: int | None,
    images: Tensor | None,
) -> Channel:
    if name == "logistic":
        return Logistic()
    if bits is not None and not are_counts(bits):
        raise InputError(f"bits is {bits!r:.40}; give a whole number from 1 to 16.")
    if name == "quantized":
        bits = 4 if bits is None else bits
    elif name.startswith("onebit") or bits == 1:
        return OneBit(sigma=0.5 if sigma is None else sigma)
    default = 0.1 if name == "denoise" else 0.0
    sigma = default if sigma is None else sigma
    if bits is None:
        return GaussianNoise(sigma)
    limit = 1.0
    if name == "quantized" and operator.pixels is None:
        # Sums of pixels are near normal, of variance c̄ E[x²]: three deviations hold 99.7 % of them.
        square = MEAN_SQUARE if images is None else _mean_square(images)
        limit = max(3 * math.sqrt(operator.gram.mean * square), 1e-3)
    return Quantized(bits=bits, sigma=sigma, limit=limit)


def _mean_square(images: object) -> float:
    """E[x²] of images on [-1, 1], or an InputError if they are none."""
    if isinstance(images, Tensor) and images.is_floating_point() and images.numel():
        square = images.square().mean().item()
        if square <= FAR_OUTSIDE**2:
            return square
    raise InputError(
        "the images are a tensor of floats (B, C, H, W) on [-1, 1]; convert 8-bit values with "
        "ds.images.from_uint8."
    )
