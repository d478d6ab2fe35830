"""The files of a report, in a folder: the page, tables, entries and figures."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffsplit.io.files import atomic_write
from diffsplit.io.images import save_image
from diffsplit.report.figures import drawings, write
from diffsplit.report.gallery import Shown, figure, gallery, overview
from diffsplit.report.latex import latex
from diffsplit.report.page import PICTURES, page
from diffsplit.report.paired import comparisons
from diffsplit.report.source import Results
from diffsplit.report.summary import Summary
from diffsplit.report.tables import comparisons_csv, entries_csv, markdown

__all__ = ["FORMATS", "write_report"]


@dataclass(frozen=True)
class Shape:
    """What pictures a report has.

    Attributes:
        pictures: images of each task that are shown at most.
        maps: whether figures of them have the error and the deviation of each answer.
    """

    pictures: int = PICTURES
    maps: bool = True


Write = Callable[[Results, Summary, Path, Shape], list[Path]]


def write_report(
    results: Results,
    folder: Path,
    formats: Sequence[str],
    pictures: int = PICTURES,
    maps: bool = True,
) -> list[Path]:
    """Write a report to a folder, which is created if need be, and return the files.

    Args:
        formats: names from `FORMATS`.
        pictures, maps: see `Shape`.

    Raises:
        InputError: the folder cannot be written to.
        MissingDependencyError: figures are wanted, and matplotlib is not installed.
    """
    summary = Summary(results)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        path
        for name in dict.fromkeys(formats)
        for path in FORMATS[name](results, summary, folder, Shape(pictures, maps))
    ]


def _text(path: Path, text: str) -> list[Path]:
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8", newline="\n")
    return [path]


def _html(results: Results, summary: Summary, folder: Path, shape: Shape) -> list[Path]:
    return _text(folder / "index.html", page(results, summary, shape.pictures))


def _markdown(results: Results, summary: Summary, folder: Path, shape: Shape) -> list[Path]:
    return _text(folder / "table.md", markdown(summary))


def _latex(results: Results, summary: Summary, folder: Path, shape: Shape) -> list[Path]:
    return _text(folder / "table.tex", latex(summary))


def _csv(results: Results, summary: Summary, folder: Path, shape: Shape) -> list[Path]:
    return [
        *_text(folder / "results.csv", entries_csv(summary)),
        *_text(folder / "paired.csv", comparisons_csv(comparisons(summary))),
    ]


def _figures(results: Results, summary: Summary, folder: Path, shape: Shape) -> list[Path]:
    """Plots as PDF; the pictures of each task, and one of each task together, as PNG."""
    paths = []
    for drawing in drawings(summary):
        paths.append(folder / f"{drawing.name}.pdf")
        write(drawing, paths[-1])
    shown = gallery(results, summary, shape.pictures)
    first: list[Shown] = []
    for index, row in enumerate(summary.facts.rows, start=1):
        images = [one for one in shown if one.row == row]
        if images:
            paths.append(folder / f"pictures-{index}{_slug(row)}.png")
            save_image(figure(images, summary.facts.solvers, shape.maps), paths[-1])
            first.append(images[len(first) % len(images)])  # so that tasks show different images
    if first:
        paths.append(folder / "overview.png")
        save_image(overview(first), paths[-1])
    return paths


def _slug(label: str) -> str:
    """A label as the end of a file name: "-" and plain letters, or nothing."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40]
    return f"-{words}" if words else ""


FORMATS: dict[str, Write] = {
    "html": _html,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "figures": _figures,
}
"""What a report can be written as, by name."""
