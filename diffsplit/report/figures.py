"""Figures of a run, with matplotlib: quality against cost, and how well intervals are calibrated.

One panel a task, one marker a method, with the standard deviation over the images as a bar.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffsplit.errors import MissingDependencyError
from diffsplit.io.files import atomic_write
from diffsplit.report.quantities import EVALUATIONS, SECONDS, Quantity, quantity
from diffsplit.report.summary import Cell, Statistic, Summary

__all__ = ["Drawing", "as_svg", "drawings", "write"]

COLUMNS = 3
"""Of panels."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6BB1", "#7F7F7F")
"""Distinct for color-blind eyes too (Okabe and Ito 2008), on white and on black."""
INK, LIGHT_INK = "#1a1a1a", "#e6e6e6"
"""Of text and axes on a light page, and on a dark one."""
MARKERS = "osD^vPX*<>"
LEVELS = (50, 60, 70, 80, 90, 95)
"""Of intervals, in percent, whose coverage a run may have."""


@dataclass(frozen=True)
class Drawing:
    """One figure: a short name for its file, a sentence that says what it shows, how to draw it."""

    name: str
    words: str
    draw: Callable[[], Any]


def drawings(summary: Summary) -> list[Drawing]:
    """All figures for which the run has the numbers."""
    found = []
    for metric in map(quantity, ("psnr", "lpips")):
        for cost in (SECONDS, EVALUATIONS):
            if any(_point(cell, metric, cost) for cell in summary.cells.values()):
                found.append(_scatter(summary, metric, cost))
    if any(_coverage(cell) for cell in summary.cells.values()):
        words = (
            "Share of the values that the intervals hold against their nominal level; intervals "
            "that keep their promise lie on the diagonal, too narrow ones below it."
        )
        found.append(Drawing("calibration", words, partial(_calibration, summary)))
    return found


def as_svg(drawing: Drawing) -> tuple[bytes, bytes]:
    """The figure as SVG with a transparent ground, for a light page and for a dark one.

    The same run gives the same bytes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    file = io.BytesIO()
    with _style():
        drawing.draw().savefig(file, format="svg", transparent=True, metadata={"Date": None})
    light = file.getvalue()
    return light, light.replace(INK.encode(), LIGHT_INK.encode())


def write(drawing: Drawing, path: Path) -> None:
    """Write the figure, for papers: PDF, SVG or PNG by the suffix.

    Raises:
        InputError: the folder does not exist.
        MissingDependencyError: matplotlib is not installed.
    """
    with _style(), atomic_write(path) as temporary:
        drawing.draw().savefig(temporary, dpi=200)


@contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            "figures need matplotlib: pip install 'diffsplit[train]' or matplotlib."
        ) from error
    names = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    settings = {
        **dict.fromkeys(names, INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "font.size": 9,
        "pdf.fonttype": 42,  # text that stays text
        "svg.fonttype": "none",
        "svg.hashsalt": "diffsplit",
        "text.parse_math": False,  # labels are no formulas
    }
    with matplotlib.rc_context(settings):
        yield


Panel = tuple[str, list[Cell]]


def _panels(summary: Summary, wanted: Callable[[Cell], object]) -> list[Panel]:
    """The tasks with cells that are wanted, and these cells."""
    rows = (
        (row, [cell for cell in summary.of_row(row) if wanted(cell)]) for row in summary.facts.rows
    )
    return [(row, cells) for row, cells in rows if cells]


def _sheet(rows: list[str]) -> tuple[Any, list[Any]]:
    """A figure with a panel for each task."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(max(4.5, 3.0 * columns), 2.5 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for panel in panels[len(rows) :]:
        panel.remove()
    for panel, row in zip(panels, rows, strict=False):
        panel.set_title(row if len(row) <= 36 else row[:35] + "…")
        panel.grid(alpha=0.25, linewidth=0.6)
    return figure, panels[: len(rows)]


def _look(summary: Summary, cell: Cell) -> dict[str, Any]:
    """Color and marker of a method, the same in every figure."""
    index = summary.facts.solvers.index(cell.solver)
    marker = MARKERS[index % len(MARKERS)]
    return {"color": COLORS[index % len(COLORS)], "marker": marker, "label": cell.solver}


def _legend(figure: Any, panels: list[Any]) -> None:
    """One legend for all panels, below them."""
    shown: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    columns = min(4, len(shown))
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=columns, frameon=False
    )


def _point(cell: Cell, metric: Quantity, cost: Quantity) -> bool:
    """Whether a method has both numbers, so that it can be drawn."""
    found = [cell.statistics.get(one.name) for one in (metric, cost)]
    return all(one is not None and math.isfinite(one.mean) for one in found)


def _scale(axis: Any, costs: list[float]) -> None:
    """A logarithmic axis of costs with plain numbers; linear below 1 where a cost is 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

    all_positive = min(costs) > 0
    positive = [cost for cost in costs if cost > 0] or [1.0]
    steps = (1.0, 2.0, 5.0) if max(positive) < 20 * min(positive) else (1.0,)
    if all_positive:
        axis.set_xscale("log")
        axis.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
        axis.xaxis.set_major_locator(LogLocator(subs=steps))
    else:
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(-0.3, max(positive) * 1.6)
        axis.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=steps))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))


def _scatter(summary: Summary, metric: Quantity, cost: Quantity) -> Drawing:
    def draw() -> Any:
        panels = _panels(summary, lambda cell: _point(cell, metric, cost))
        figure, axes = _sheet([row for row, _ in panels])
        for axis, (_, cells) in zip(axes, panels, strict=True):
            for cell in cells:
                price, quality = cell.statistics[cost.name], cell.statistics[metric.name]
                look = _look(summary, cell)
                axis.errorbar(
                    price.mean, quality.mean, quality.std, elinewidth=0.8, linestyle="", **look
                )
            _scale(axis, [cell.statistics[cost.name].mean for cell in cells])
            axis.set_xlabel(f"{cost.title} per image")
            axis.set_ylabel(metric.heading)
        _legend(figure, axes)
        return figure

    better = "up and left" if metric.better > 0 else "down and left"
    words = (
        f"{metric.title} against {cost.title} per image, mean and standard deviation over "
        f"{summary.counted}; {better} is better."
    )
    return Drawing(f"{metric.name}-{cost.name}", words, draw)


def _coverage(cell: Cell) -> dict[int, Statistic]:
    """By level in percent: the share of values inside the intervals of that level."""
    names = {level: f"coverage_{level}" for level in LEVELS}
    return {k: cell.statistics[name] for k, name in names.items() if name in cell.statistics}


def _calibration(summary: Summary) -> Any:
    panels = _panels(summary, _coverage)
    figure, axes = _sheet([row for row, _ in panels])
    for axis, (_, cells) in zip(axes, panels, strict=True):
        ends = (LEVELS[0], 100)
        axis.plot(ends, ends, color="#888888", linewidth=0.8, linestyle="--")
        for cell in cells:
            found = _coverage(cell)
            shares = [100 * statistic.mean for statistic in found.values()]
            axis.plot(list(found), shares, linewidth=1.2, markersize=4, **_look(summary, cell))
        axis.set_xlabel("nominal level (%)")
        axis.set_ylabel("coverage (%)")
    _legend(figure, axes)
    return figure
