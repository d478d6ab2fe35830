"""Pictures of what is no image on [-1, 1]: standard deviations, measurements, back-projections."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from diffsplit.errors import InputError
from diffsplit.plots.grids import from_canvas, image_grid, on_canvas
from diffsplit.plots.lettering import FONT_SIZE, font
from diffsplit.problem import Problem

__all__ = ["measurement_pictures", "std_figure", "std_map", "stretch"]

GRAY_LEVELS = 127.5
"""Gray levels of an 8-bit image in one unit of [-1, 1]."""


def std_map(std: Tensor, top: float | None = None) -> Tensor:
    """A standard-deviation map as a gray picture: black is certain, white is ``top`` or more.

    Args:
        std: ``(B, C, H, W)``; the root of the mean square over the channels is shown.
        top: the value shown white; by default the 99th percentile of the batch.

    Returns:
        ``(B, 3, H, W)`` on [-1, 1].

    Raises:
        InputError: ``std`` has another shape, or is negative or not finite somewhere.
    """
    gray = _mean_over_channels(std)
    scale = _percentile(gray) if top is None else top
    return (gray / max(scale, 1e-12)).clamp(0, 1).mul(2).sub(1).expand(-1, 3, -1, -1)


def std_figure(std: Tensor, top: float | None = None, scale: int = 3) -> Tensor:
    """Standard-deviation maps in a row, beside a bar with their scale in gray levels of 0…255.

    Args:
        std: ``(C, H, W)``, or ``(B, C, H, W)`` with one scale for all, in the units of images on
            [-1, 1]; the root of the mean square over the channels is shown.
        top: the gray levels shown white; by default the 99th percentile of the maps.
        scale: each pixel becomes ``scale``×``scale``.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1], on white.

    Raises:
        InputError: see `std_map`, or ``top`` is not above 0.
    """
    batch = std[None] if isinstance(std, Tensor) and std.ndim == 3 else std
    levels = GRAY_LEVELS * _mean_over_channels(batch)
    top = (_percentile(levels) or 1.0) if top is None else top
    if not top > 0:
        raise InputError(f"the top of the scale is {top}; give gray levels above 0.")
    maps = on_canvas(image_grid(std_map(levels, top), columns=len(batch)), scale)
    bar = torch.linspace(1, -1, maps.height).view(1, -1, 1).expand(1, -1, 12)
    labels = [f"{top:.3g} gray levels", f"{top / 2:.3g}", "0"]
    left, pad = maps.width + 8, FONT_SIZE // 2 + 1
    text = left + 12 + 5
    width = text + round(font().getlength(labels[0])) + 2
    canvas = Image.new("RGB", (width, maps.height + 2 * pad), "white")
    canvas.paste(maps, (0, pad))
    canvas.paste(on_canvas(bar, 1), (left, pad))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, pad, left + 11, pad + maps.height - 1), outline="black")
    for i, label in enumerate(labels):
        middle = pad + i * (maps.height - 1) // 2
        draw.text((text, middle), label, fill="black", font=font(), anchor="lm")
    return from_canvas(canvas)


def _mean_over_channels(std: Tensor) -> Tensor:
    """√(mean over the channels of std²): ``(B, 1, H, W)``."""
    if not isinstance(std, Tensor) or std.ndim != 4 or std.is_complex() or not std.numel():
        kind = tuple(std.shape) if isinstance(std, Tensor) else type(std).__name__
        raise InputError(
            f"standard deviations are a tensor (B, C, H, W), not {kind}; a recovery has them where "
            "it has two posterior samples or more."
        )
    if not bool(((std >= 0) & std.isfinite()).all()):
        raise InputError("standard deviations are finite and not negative; these are not.")
    return std.float().square().mean(1, keepdim=True).sqrt()


def _percentile(values: Tensor) -> float:
    """The 99th percentile; torch.quantile takes no more than 2²⁴ values."""
    flat = values.flatten()
    return float(flat.kthvalue(max(1, round(0.99 * len(flat)))).values)


def stretch(images: Tensor) -> Tensor:
    """Images ``(B, …)`` of any scale, such as Aᵀ y, each scaled to fill [-1, 1] around zero.

    The largest half percent of the magnitudes is clipped, so that a few outliers do not leave the
    rest gray.

    Raises:
        InputError: no batch of images.
    """
    if not isinstance(images, Tensor) or images.ndim < 2 or not images.numel():
        raise InputError("stretch takes a batch of images, a tensor of shape (B, C, H, W).")
    flat = images.float().flatten(1).abs()
    top = flat.kthvalue(max(1, round(0.995 * flat.shape[1])), dim=1).values
    top = torch.where(top > 0, top, flat.amax(1)).clamp(min=1e-12)
    return (images.float() / top.view(-1, *(1,) * (images.ndim - 1))).clamp(-1, 1)


def measurement_pictures(problem: Problem, y: Tensor) -> tuple[str, Tensor]:
    """What was measured, to look at, with a label.

    Pixels are shown as they are, the missing ones gray, and smaller images enlarged. What else was
    measured, such as random sums of pixels, is shown as Aᵀ y, stretched.

    Args:
        y: measurements ``(B, *shape_out)`` of images ``(C, H, W)``.

    Returns:
        The label and the pictures ``(B, C', H, W)``, with one or three channels where C has.

    Raises:
        InputError: ``y`` is no batch of measurements of this problem, or what was measured is no
            image.
    """
    if not isinstance(problem, Problem):
        raise InputError("give a problem and its measurements, in this order.")
    problem.check(y)
    operator = problem.operator
    if len(operator.shape_in) != 3:
        raise InputError(
            f"pictures are made of images (C, H, W), and these are signals {operator.shape_in}; "
            "draw problem.backprojection(y) with ds.plots.signal_figure."
        )
    if operator.pixels is not None:
        return "measurement", problem.backprojection(y) / operator.gram.mean
    if y.ndim == 4 and y.shape[1] in (1, 3):
        values = problem.channel.value(y)
        return "measurement", interpolate(values, operator.shape_in[1:], mode="nearest")
    return "A^T y", stretch(problem.backprojection(y))
