"""Grids and labelled comparison figures, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, to_uint8
from diffsplit.operators.mask import PixelMask
from diffsplit.problem import Problem

__all__ = [
    "comparison",
    "image_grid",
    "measurement_pictures",
    "side_by_side",
    "std_map",
    "stretch",
]


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images ``(B, C, H, W)`` on [-1, 1] side by side, row by row, on white: ``(C, H', W')``.

    Raises:
        InputError: no batch of images, or no column.
    """
    if images.ndim != 4 or len(images) == 0 or columns < 1:
        raise InputError(
            "a grid shows images of shape (B, C, H, W) in one column or more, not "
            f"{tuple(images.shape)} in {columns}."
        )
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    sheet = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def std_map(std: Tensor, top: float | None = None) -> Tensor:
    """A standard-deviation map as a gray picture: black is certain, white is ``top`` or more.

    Args:
        std: ``(B, C, H, W)``; averaged over channels.
        top: the value shown white; by default the 99th percentile of the batch.

    Returns:
        ``(B, 3, H, W)`` on [-1, 1].
    """
    gray = std.float().square().mean(1, keepdim=True).sqrt()
    scale = gray.flatten().quantile(0.99) if top is None else gray.new_tensor(top)
    return (gray / scale.clamp(min=1e-12)).clamp(0, 1).mul(2).sub(1).expand(-1, 3, -1, -1)


def stretch(images: Tensor) -> Tensor:
    """Images of any scale, such as Aᵀ y, each shrunk or grown to fill [-1, 1] around zero.

    The largest half percent of the magnitudes is clipped, so that a few outliers do not leave the
    rest gray.
    """
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
    """
    if isinstance(problem.operator, PixelMask):
        return "measurement", problem.backprojection(y)
    if y.ndim == 4 and y.shape[1] in (1, 3):
        values = problem.channel.value(y)
        return "measurement", interpolate(values, problem.operator.shape_in[1:], mode="nearest")
    return "A^T y", stretch(problem.backprojection(y))


def side_by_side(panels: Sequence[tuple[str, Tensor]], scale: int = 3, gap: int = 6) -> Tensor:
    """Images next to each other, each over its caption.

    Args:
        panels: caption and image ``(C, H, W)`` on [-1, 1], all of one height and width.
        scale: each pixel becomes ``scale``×``scale``.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1], black on white.
    """
    sizes = {tuple(image.shape[-2:]) for _, image in panels}
    if len(sizes) != 1:
        raise InputError(f"panels of a figure need images of one size, not {sizes}.")
    height, width = sizes.pop()
    font = ImageFont.load_default(13)
    cell = max(width * scale, *(math.ceil(font.getlength(label)) for label, _ in panels)) + gap
    canvas = Image.new("RGB", (len(panels) * cell - gap, height * scale + 22), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (label, image) in enumerate(panels):
        middle = i * cell + (cell - gap) // 2
        canvas.paste(_enlarged(image, scale), (middle - width * scale // 2, 0))
        draw.text((middle, height * scale + 11), label, fill="black", font=font, anchor="mm")
    return _from_canvas(canvas)


def comparison(
    rows: Sequence[tuple[str, Tensor]], scale: int = 2, gap: int = 4, label_width: int = 150
) -> Tensor:
    """One labelled row a method, one column an image: the figure of a paper.

    Args:
        rows: label and images ``(B, C, H, W)`` on [-1, 1], all rows of one shape; a line break in
            the label starts a second line.
        scale: each pixel becomes ``scale``×``scale``.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1], black on white.
    """
    shapes = {tuple(images.shape[-2:]) for _, images in rows}
    counts = {len(images) for _, images in rows}
    if len(shapes) != 1 or len(counts) != 1:
        raise InputError(
            f"rows of a figure need images of one size and number, not {shapes} and {counts}."
        )
    (height, width), count = shapes.pop(), counts.pop()
    cell = (height * scale + gap, width * scale + gap)
    canvas = Image.new(
        "RGB", (label_width + count * cell[1] - gap, len(rows) * cell[0] - gap), "white"
    )
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for r, (label, images) in enumerate(rows):
        middle = r * cell[0] + height * scale // 2
        draw.multiline_text((6, middle), label, fill="black", font=font, anchor="lm", spacing=3)
        for c, image in enumerate(images):
            canvas.paste(_enlarged(image, scale), (label_width + c * cell[1], r * cell[0]))
    return _from_canvas(canvas)


def _enlarged(image: Tensor, scale: int) -> Image.Image:
    array = to_uint8(image.expand(3, -1, -1)).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _from_canvas(canvas: Image.Image) -> Tensor:
    return from_uint8(torch.from_numpy(np.array(canvas)).permute(2, 0, 1))
