"""Several images in one: grids, captions below, labels beside; drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, to_uint8
from diffsplit.plots.lettering import font, readable

__all__ = [
    "caption_width",
    "check_images",
    "comparison",
    "from_canvas",
    "image_grid",
    "on_canvas",
    "side_by_side",
]

LINE = 22
"""Height of a line of text, in pixels."""


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images ``(B, C, H, W)`` on [-1, 1] side by side, row by row, on white: ``(C, H', W')``.

    Raises:
        InputError: no batch of images, or no column.
    """
    check_images(images, "(B, C, H, W)")
    if type(columns) is not int or columns < 1:
        raise InputError(f"a grid has one column or more, not {columns!r:.40}.")
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    sheet = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def side_by_side(
    panels: Sequence[tuple[str, Tensor]],
    scale: int = 3,
    gap: int = 6,
    title: str = "",
    least: int = 0,
) -> Tensor:
    """Images next to each other, each over its caption.

    Args:
        panels: caption and image ``(C, H, W)`` on [-1, 1], all of one height and width.
        scale: each pixel becomes ``scale``×``scale``.
        title: a line above them, if there is one.
        least: width of a column in pixels, if its image and caption are narrower.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1], black on white.

    Raises:
        InputError: images of several sizes.
    """
    for _, image in panels:
        check_images(image, "(C, H, W)")
    sizes = {tuple(image.shape[-2:]) for _, image in panels}
    if len(sizes) != 1:
        raise InputError(f"panels of a figure need images of one size, not {sizes}.")
    height, width = sizes.pop()
    panels = [(readable(label), image) for label, image in panels]
    top = LINE if title else 0
    cell = max(width * scale, least, *(caption_width(label) for label, _ in panels)) + gap
    right = max(len(panels) * cell - gap, caption_width(title))
    size = right, top + height * scale + LINE
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((0, LINE // 2), readable(title), fill="black", font=font(), anchor="lm")
    for i, (label, image) in enumerate(panels):
        middle = i * cell + (cell - gap) // 2
        canvas.paste(on_canvas(image, scale), (middle - width * scale // 2, top))
        place = middle, top + height * scale + LINE // 2
        draw.text(place, label, fill="black", font=font(), anchor="mm")
    return from_canvas(canvas)


def caption_width(caption: str) -> int:
    """Pixels that a caption takes."""
    return math.ceil(font().getlength(readable(caption)))


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

    Raises:
        InputError: rows of several sizes or numbers of images.
    """
    for _, images in rows:
        check_images(images, "(B, C, H, W)")
    shapes = {(len(images), *images.shape[-2:]) for _, images in rows}
    if len(shapes) != 1:
        raise InputError(
            f"rows of a figure need images of one number, height and width, not {shapes}."
        )
    count, height, width = shapes.pop()
    down, right = height * scale + gap, width * scale + gap
    canvas = Image.new("RGB", (label_width + count * right - gap, len(rows) * down - gap), "white")
    draw = ImageDraw.Draw(canvas)
    for r, (label, images) in enumerate(rows):
        place = 6, r * down + height * scale // 2
        text = readable(label)
        draw.multiline_text(place, text, fill="black", font=font(), anchor="lm", spacing=3)
        for c, image in enumerate(images):
            canvas.paste(on_canvas(image, scale), (label_width + c * right, r * down))
    return from_canvas(canvas)


def check_images(images: Tensor, shape: str) -> None:
    """Refuse anything but a tensor of floats with as many dimensions as ``shape`` names."""
    ok = isinstance(images, Tensor) and images.is_floating_point() and images.numel() > 0
    if not ok or images.ndim != len(shape.split(",")) or images.shape[-3] not in (1, 3):
        kind = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"a figure shows tensors of floats of shape {shape}, with one channel or three, not "
            f"{kind}; convert bytes with ds.images.from_uint8, draw signals with "
            "ds.plots.signal_figure."
        )


def on_canvas(image: Tensor, scale: int) -> Image.Image:
    """An image ``(C, H, W)`` on [-1, 1] for Pillow, each pixel ``scale``×``scale``."""
    array = to_uint8(image.expand(3, -1, -1)).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def from_canvas(canvas: Image.Image) -> Tensor:
    """An RGB picture of Pillow as ``(3, H, W)`` on [-1, 1]."""
    return from_uint8(torch.from_numpy(np.array(canvas)).permute(2, 0, 1))
