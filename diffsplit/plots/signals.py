"""Signals of one dimension as curves, with a band for their intervals."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.plots.drawing import finished, new_figure

__all__ = ["signal_figure"]


def signal_figure(
    curves: Sequence[tuple[str, Tensor]],
    interval: tuple[Tensor, Tensor] | None = None,
    axis: Tensor | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Tensor:
    """Curves over the entries of signals, one panel a signal of the batch.

    Args:
        curves: label and signals ``(N,)`` or ``(B, N)``, all of one shape.
        interval: lower and upper bounds of that shape, such as ``result.interval(0.9)``, drawn as
            a band.
        axis: where the entries lie, ``(N,)``: times or wavelengths; 0 … N − 1 if None.
        path: also write the figure here, as PNG, PDF or SVG by its suffix.

    Returns:
        The figure ``(3, H, W)`` on [-1, 1].

    Raises:
        InputError: no curves, signals of another kind or of several shapes, or a path that cannot
            be written.
        MissingDependencyError: matplotlib is not installed.
    """
    parts = [(label, _signals(values)) for label, values in curves]
    band = None if interval is None else [_signals(bound) for bound in interval]
    shapes = {tuple(values.shape) for values in [*(v for _, v in parts), *(band or [])]}
    if not parts or len(shapes) != 1:
        raise InputError(f"curves of a figure are signals of one shape, not of {sorted(shapes)}.")
    count, size = shapes.pop()
    if axis is not None and tuple(axis.shape) != (size,):
        raise InputError(f"the axis of signals of {size} entries has the shape ({size},).")
    places = range(size) if axis is None else axis.detach().cpu().numpy()
    figure = new_figure(8, 0.6 + 2.2 * count)
    panels = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    for i, panel in enumerate(panels):
        for label, values in parts:
            panel.plot(places, values[i].numpy(), linewidth=1, label=label)
        if band is not None:
            low, high = (bound[i].numpy() for bound in band)
            panel.fill_between(places, low, high, color="gray", alpha=0.35, label="interval")
        panel.grid(alpha=0.3)
    panels[0].legend(loc="best", fontsize="small")
    return finished(figure, path)


def _signals(values: Tensor) -> Tensor:
    """A batch ``(B, N)`` for drawing, or an InputError."""
    ok = isinstance(values, Tensor) and values.is_floating_point() and values.numel() > 0
    if not ok or values.ndim not in (1, 2):
        kind = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"a curve is a tensor of floats (N,) or (B, N), not {kind}; draw images with "
            "ds.plots.comparison."
        )
    batch = values.detach().cpu().double()
    return batch[None] if batch.ndim == 1 else batch
