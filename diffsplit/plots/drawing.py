"""Figures of matplotlib, which is imported only here and only when a figure is drawn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.files import atomic_write
from diffsplit.io.images import from_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["finished", "new_figure"]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches of 100 pixels.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("curves need matplotlib: pip install matplotlib.") from error
    return Figure(figsize=(width, height), layout="constrained")


def finished(figure: Figure, path: str | os.PathLike[str] | None) -> Tensor:
    """The figure as ``(3, H, W)`` on [-1, 1], and written to ``path`` if there is one.

    Raises:
        InputError: the path cannot be written, or its suffix is no format that matplotlib knows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())[..., :3]
    if path is not None:
        with atomic_write(path) as temporary:
            try:
                figure.savefig(temporary)
            except ValueError as error:  # a suffix that matplotlib does not know
                raise InputError(f"{path}: {error}.") from error
    return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1))
