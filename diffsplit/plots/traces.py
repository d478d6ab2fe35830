"""What a run noted, for people: curves over the steps, and tables in Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.plots.drawing import finished, new_figure

__all__ = ["markdown_table", "trace_figure"]


class Columns(Protocol):
    """A `diffsplit.solvers.recovery.Trace`, or a dict of tensors ``(steps, B)``."""

    def items(self) -> Iterable[tuple[str, Tensor]]: ...


def trace_figure(trace: Columns, path: str | os.PathLike[str] | None = None) -> Tensor:
    """Curves of a `Recovery`'s trace over the steps: one panel a column, one line an image.

    Columns of positive numbers have a logarithmic axis.

    Args:
        trace: ``result.trace``, or a dict of tensors ``(steps, B)``.
        path: also write the figure here, as PNG, PDF or SVG by its suffix.

    Returns:
        The figure ``(3, H, W)`` on [-1, 1].

    Raises:
        InputError: a trace without steps, or a path that cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    if not hasattr(trace, "items"):
        raise InputError("trace_figure draws the trace of a recovery; give result.trace.")
    columns = {name: values.detach().cpu().double() for name, values in trace.items()}
    if not columns:
        raise InputError("the trace holds no steps; there is nothing to draw.")
    figure = new_figure(6, 1 + 1.6 * len(columns))
    panels = figure.subplots(len(columns), sharex=True, squeeze=False)[:, 0]
    for panel, (name, values) in zip(panels, columns.items(), strict=True):
        panel.plot(range(1, len(values) + 1), values.numpy(), marker=".", linewidth=1)
        panel.set_ylabel(name.replace("_", " "))
        panel.set_yscale("log" if bool((values > 0).all()) else "linear")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return finished(figure, path)


def markdown_table(rows: Sequence[Mapping[str, object]], digits: int = 2) -> str:
    """A table in Markdown, one line a row, with the columns in the order of their first use.

    Args:
        rows: what stands in each column; "–" stands where a row has None or nothing.
        digits: of floats, after the point.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: object) -> str:
        shown = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
        return "–" if value is None else shown.replace("|", "\\|").replace("\n", " ")

    def is_number(name: str) -> bool:
        return all(isinstance(row.get(name, 0), int | float | None) for row in rows)

    lines = [
        [cell(name) for name in columns],
        ["---:" if is_number(name) else ":---" for name in columns],
        *([cell(row.get(name)) for name in columns] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
