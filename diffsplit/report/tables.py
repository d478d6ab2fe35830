"""The results as text: Markdown for people, CSV of every entry for programs.

A Markdown table has one line a task and method. The best mean of a task is bold and the second
underlined; what is missing has a mark, and its sentence stands below.
"""

from __future__ import annotations

import csv
import io
import re

from diffsplit.report.paired import Comparison
from diffsplit.report.quantities import Quantity
from diffsplit.report.summary import Cell, Summary

__all__ = ["NOTHING", "caption", "comparisons_csv", "entries_csv", "markdown"]

NOTHING = "–"
"""Where a table has nothing to show."""


def caption(summary: Summary) -> str:
    """What the numbers are, in sentences."""
    facts, parts = summary.facts, []
    if summary.entries:
        parts.append(
            f"Mean ± standard deviation over {summary.counted}. In each task the best mean is "
            "bold and the second underlined; ↑ means more is better, ↓ less."
        )
        if any(cell.done and not cell.complete for cell in summary.cells.values()):
            parts.append("A method that lacks an image is not ranked.")
    if any(cell.printed for cell in summary.cells.values()):
        source = facts.source or "the paper"
        parts.append(f"The columns “paper” hold what {source} prints.")
    return " ".join(parts)


def markdown(summary: Summary) -> str:
    """The table in Markdown under its title, with its caption and footnotes."""
    head = ["task", "method"]
    for metric in summary.columns:
        head += [metric.heading, *(["paper"] if summary.has_printed(metric) else [])]
    lines = [head, [":---"] * 2 + ["---:"] * (len(head) - 2)]
    for row in summary.facts.rows:
        for index, cell in enumerate(summary.of_row(row)):
            lines.append([_escaped(row) if index == 0 else "", *_cells(summary, cell)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(
        f"<sup>{mark}</sup> {_escaped(sentence)}  \n" for sentence, mark in summary.notes.items()
    )
    notes += "".join(f"{_escaped(note)}  \n" for note in summary.facts.notes)
    parts = [
        f"# {_escaped(summary.facts.title)}\n",
        table,
        _escaped(caption(summary)) + "\n",
        notes,
    ]
    return "\n".join(part for part in parts if part.strip())


def _cells(summary: Summary, cell: Cell) -> list[str]:
    marks = f" <sup>{summary.marks(cell)}</sup>" if cell.notes else ""
    texts = [_escaped(cell.solver) + marks]
    for metric in summary.columns:
        texts.append(_number(summary, cell, metric))
        if summary.has_printed(metric):
            texts.append(_escaped(cell.printed.get(metric.name, NOTHING)))
    return texts


def _number(summary: Summary, cell: Cell, metric: Quantity) -> str:
    if metric.name not in cell.statistics:
        return "n/a" if cell.done else NOTHING
    mean = metric.text(cell.statistics[metric.name].mean)
    rank = summary.rank(cell, metric)
    mean = {1: f"**{mean}**", 2: f"<u>{mean}</u>", None: mean}[rank]
    spread = summary.spread(cell, metric)
    return mean if spread is None else f"{mean} ± {spread}"


def _escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    text = re.sub(r"([\\`*\[\]|#~])", r"\\\1", " ".join(text.split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def entries_csv(summary: Summary) -> str:
    """All entries in long form: one line a solver, image, task and seed, with every value.

    Numbers are written in full, so that reading them gives the same numbers. What an entry does not
    have is empty.
    """
    shown = [column.name for column in summary.columns]
    names = list(dict.fromkeys([*shown, *(n for e in summary.entries for n in e.values)]))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["key", "row", "solver", "image", "seed", "status", "reason", *names])
    for entry in summary.entries:
        about = [entry.key, entry.row, entry.solver, entry.image, entry.seed]
        values = [repr(float(entry.values[n])) if n in entry.values else "" for n in names]
        writer.writerow([*about, entry.status, entry.reason, *values])
    return file.getvalue()


def comparisons_csv(comparisons: list[Comparison]) -> str:
    """Paired comparisons, one line a task, pair of methods and quantity."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = "row first second quantity images mean_difference low high share_first_better"
    writer.writerow(names.split())
    for one in comparisons:
        bounds = ["", ""] if one.margin is None else [one.mean - one.margin, one.mean + one.margin]
        share = "" if one.share is None else one.share
        about = [one.row, one.first, one.second, one.quantity.name, one.count]
        writer.writerow([*about, one.mean, *bounds, share])
    return file.getvalue()
