"""``diffsplit report``: the results of a benchmark become a page, tables and figures."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from diffsplit.bench.store import Store
from diffsplit.cli.common import say
from diffsplit.errors import InputError
from diffsplit.report import FORMATS, write_report
from diffsplit.report.page import PICTURES

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT")] = None,
    format_: Annotated[str | None, typer.Option("--format", metavar="NAMES")] = None,
    pictures: Annotated[int, typer.Option(min=0)] = PICTURES,
    maps: Annotated[bool, typer.Option("--maps/--no-maps")] = True,
) -> None:
    """Make a page, tables and figures of the results of a benchmark.

    The page is one file, index.html, that needs no network: the table with the papers' values
    beside ours, plots, paired comparisons and pictures. Files of an earlier report are replaced.

    Args:
        folder: What diffsplit bench or diffsplit compare wrote.
        output: Folder for the report (default: DIR/report).
        format_: What to write: html, markdown, latex, csv, figures, with commas between them
            (default: all of them).
        pictures: Of how many images of each task to show pictures at most.
        maps: In the figures of pictures, also show the error and the standard deviation of each
            answer.

    Examples:
        diffsplit report results
        diffsplit report results -o paper --format latex,figures
    """
    formats = list(FORMATS) if format_ is None else [name.strip() for name in format_.split(",")]
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"{name!r:.40} is no format; choose from {', '.join(FORMATS)}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that diffsplit bench wrote.")
    target = _writable(folder / "report" if output is None else output)
    with Store.open(folder) as store:
        if format_ is None and find_spec("matplotlib") is None:
            formats.remove("figures")
            say("Note: no figures, since matplotlib is not installed; pip install matplotlib.")
        paths = write_report(store, target, formats, pictures, maps)
    for path in paths:
        print(path)


def _writable(folder: Path) -> Path:
    """The folder, if files can be written there or it can be created."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise InputError(f"{place}: is a file; give the name of a folder with -o.")
    if not os.access(place, os.W_OK):
        raise InputError(f"{place}: not writable; choose another folder with -o.")
    return folder
