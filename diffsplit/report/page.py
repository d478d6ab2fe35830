"""One HTML file with everything: tables, plots, comparisons and pictures.

The file loads nothing: styles, script and pictures are inside, and its own content policy forbids
anything else to run or load. What comes from the data is escaped. It is complete without the
script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from diffsplit.errors import MissingDependencyError
from diffsplit.report.figures import as_svg, drawings
from diffsplit.report.gallery import Shown, gallery, png
from diffsplit.report.latex import latex
from diffsplit.report.paired import Comparison, comparisons
from diffsplit.report.source import Results
from diffsplit.report.summary import Summary
from diffsplit.report.tables import NOTHING, caption, entries_csv, markdown

__all__ = ["PICTURES", "page"]

PICTURES = 4
"""Images of each task that are shown unless told otherwise."""
BUDGET = 24_000_000
"""Bytes of all pixels that a page holds at most, about its size; it still opens on a phone."""
BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def page(results: Results, summary: Summary, pictures: int = PICTURES) -> str:
    """The page of a run.

    Args:
        pictures: images of each task that are shown at most; fewer if they are large.
    """
    files = resources.files("diffsplit") / "assets" / "report"
    source = {name: (files / name).read_text("utf-8") for name in ("page.html",)}
    style, script = (
        (files / name).read_text("utf-8").replace("\r\n", "\n") for name in ("page.css", "page.js")
    )
    environment = Environment(
        loader=DictLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    plots, no_plots = _plots(summary)
    facts = summary.facts
    rows = [row for row in facts.rows if summary.of_row(row)]
    printed = sum(summary.has_printed(column) for column in summary.columns)
    return environment.get_template("page.html").render(
        summary=summary,
        facts=facts,
        about=_about(summary),
        caption=caption(summary),
        rows=rows,
        width=1 + len(summary.columns) + printed,
        nothing=NOTHING,
        latex=latex(summary),
        markdown=markdown(summary),
        csv=_uri(entries_csv(summary).encode(), "text/csv;charset=utf-8"),
        plots=plots,
        no_plots=no_plots,
        pairs=_pairs(rows, comparisons(summary)),
        signed=_signed,
        tasks_shown=_by_task(rows, _within_budget(gallery(results, summary, pictures))),
        uri=lambda picture: _uri(png(picture), "image/png"),
        blank=BLANK,
        run=_run(summary),
        style=Markup(style),  # ours, and so is the script
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _about(summary: Summary) -> str:
    facts = summary.facts
    parts = [facts.images, facts.prior and f"prior {facts.prior}", facts.machine]
    return " · ".join(part for part in parts if part)


def _run(summary: Summary) -> list[tuple[str, str]]:
    """What the run was, with a name for each fact."""
    facts = summary.facts
    states = [entry.status for entry in summary.entries]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    known = [
        ("images", facts.images),
        ("prior", facts.prior),
        ("compared with", facts.source),
        ("machine", facts.machine),
        ("diffsplit", facts.version),
        ("entries", counts),
    ]
    return [(name, text) for name, text in known if text]


def _plots(summary: Summary) -> tuple[list[dict[str, str]], str]:
    """Each figure as two pictures, for light and dark; or none, and a sentence that says why."""
    try:
        plots = []
        for drawing in drawings(summary):
            light, dark = (_uri(svg, "image/svg+xml") for svg in as_svg(drawing))
            plots.append({"words": drawing.words, "light": light, "dark": dark})
        return plots, ""
    except MissingDependencyError as error:
        sentence = str(error)
        return [], sentence[:1].upper() + sentence[1:]


Pair = tuple[tuple[str, str], dict[str, Comparison]]


def _pairs(rows: Sequence[str], found: Sequence[Comparison]) -> list[tuple[str, list[Pair]]]:
    """The comparisons by task and pair of methods, then by quantity."""
    by_row: dict[str, dict[tuple[str, str], dict[str, Comparison]]] = {}
    for one in found:
        of_pair = by_row.setdefault(one.row, {}).setdefault((one.first, one.second), {})
        of_pair[one.quantity.name] = one
    return [(row, list(by_row[row].items())) for row in rows if row in by_row]


def _signed(one: Comparison, value: float) -> str:
    """A difference with its sign, in the digits of its quantity."""
    text = one.quantity.text(value)
    return text if text.startswith("−") else f"+{text}"


def _by_task(rows: Sequence[str], shown: Sequence[Shown]) -> list[tuple[str, list[Shown]]]:
    by_row = [(row, [one for one in shown if one.row == row]) for row in rows]
    return [(row, images) for row, images in by_row if images]


def _within_budget(shown: list[Shown]) -> list[Shown]:
    """The same number of first images of every task, as many as the budget allows, at least 1."""
    places: dict[str, int] = {}
    order = []
    for one in shown:
        places[one.row] = places.get(one.row, 0) + 1
        order.append((places[one.row], _bytes(one), one))
    most = max(places.values(), default=0)
    while most > 1 and sum(size for place, size, _ in order if place <= most) > BUDGET:
        most -= 1
    return [one for place, _, one in order if place <= most]


def _bytes(one: Shown) -> int:
    pictures: list[Tensor | None] = [one.truth, one.measurement]
    for answer in one.answers:
        pictures += [answer.picture, answer.error, answer.std]
    return sum(picture.numel() for picture in pictures if picture is not None)


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _hash(text: str) -> str:
    """As a content policy names a text that may be used."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
