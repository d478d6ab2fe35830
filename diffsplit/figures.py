"""Grids and labelled comparison figures, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.images import from_uint8, to_uint8

__all__ = ["comparison", "image_grid", "std_map"]


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images ``(B, C, H, W)`` on [-1, 1] side by side, row by row, on white: ``(C, H', W')``."""
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    sheet = images.new_ones(
        channels, rows * (height + gap) - gap, columns * (width + gap) - gap
    )
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
        for c, image in enumerate(to_uint8(images.expand(-1, 3, -1, -1)).cpu()):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            size = (width * scale, height * scale)
            canvas.paste(
                picture.resize(size, Image.Resampling.NEAREST),
                (label_width + c * cell[1], r * cell[0]),
            )
    return from_uint8(torch.from_numpy(np.array(canvas)).permute(2, 0, 1))
