"""Means and standard deviations of a run: one cell for each task and method.

    mean = (1/n) Σ v_i,   std = √(Σ (v_i − mean)² / (n − 1))

over the n images and seeds of a cell that a solver has done. With n = 1 there is no deviation.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_lowercase

from diffsplit.bench.features import fid_of
from diffsplit.bench.measures import FID
from diffsplit.bench.store import Entry
from diffsplit.report.quantities import EVALUATIONS, SECONDS, Quantity, quantity
from diffsplit.report.source import Facts, Results

__all__ = ["Cell", "Statistic", "Summary"]


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of ``count`` numbers; std is None for a single one."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Statistic | None:
        """Of all that are not NaN; None where nothing is left."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return None
        if not all(map(math.isfinite, known)):
            return cls(sum(known) / len(known), None, len(known))
        mean = math.fsum(known) / len(known)
        if len(known) == 1:
            return cls(mean, None, 1)
        square = math.fsum((value - mean) ** 2 for value in known)
        return cls(mean, math.sqrt(square / (len(known) - 1)), len(known))


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Attributes:
        done: entries with values.
        undone: entries that failed, or whose solver there is not.
        expected: images times seeds of this task, over all methods.
        statistics: of each quantity that some entry has.
        printed: the paper's values as text, by quantity.
        notes: sentences about what is missing here.
    """

    row: str
    solver: str
    done: tuple[Entry, ...]
    undone: tuple[Entry, ...]
    expected: int
    statistics: Mapping[str, Statistic]
    printed: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every image of the task is done, so that its means compare with others'."""
        return 0 < self.expected == len(self.done)

    @property
    def empty(self) -> bool:
        """Whether neither we nor the paper have anything."""
        return not (self.done or self.undone or self.printed)


class Summary:
    """The table of a run.

    Attributes:
        facts: what the run was.
        entries: all of it.
        metrics: the quantities to show.
        compared: those that differ from image to image, so that methods can be compared on each.
        costs: evaluations and seconds, where they are not among the metrics.
        columns: all of these, in the order of the table.
        cells: by row and method, each that has anything, in the table's order.
    """

    def __init__(self, results: Results) -> None:
        self.facts = Facts.of(results)
        self.entries = tuple(results.entries())
        self.metrics = tuple(quantity(name) for name in self.facts.metrics)
        measured = {name for entry in self.entries for name in entry.values}
        self.compared = tuple(m for m in self.metrics if m.spread and m.name in measured)
        self.costs = tuple(one for one in (EVALUATIONS, SECONDS) if one not in self.metrics)
        self.columns = (*self.metrics, *self.costs)
        groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        tried: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for entry in self.entries:
            groups[entry.row, entry.solver].append(entry)
            tried[entry.row].add((entry.image, entry.seed))
        printed = self.facts.printed
        cells = (
            _cell(row, solver, groups[row, solver], len(tried[row]), printed)
            for row in self.facts.rows
            for solver in self.facts.solvers
        )
        if FID in self.facts.metrics:
            cells = (_with_fid(cell, results) for cell in cells)
        self.cells = {(cell.row, cell.solver): cell for cell in cells if not cell.empty}

    def of_row(self, row: str) -> list[Cell]:
        """The cells of a task, in the order of the methods."""
        return [cell for cell in self.cells.values() if cell.row == row]

    def rank(self, cell: Cell, metric: Quantity) -> int | None:
        """1 for the best of a task, 2 for the second, else None.

        Only cells in which every image is done are ranked, and only among at least two. Numbers
        that read alike share a rank. Costs are ranked where the paper has values of them.
        """
        return self._ranks.get((cell.row, cell.solver, metric.name))

    @cached_property
    def _ranks(self) -> dict[tuple[str, str, str], int]:
        ranks: dict[tuple[str, str, str], int] = {}
        for row in self.facts.rows:
            for metric in self.metrics:
                found = {
                    cell.solver: metric.rounded(cell.statistics[metric.name].mean)
                    for cell in self.of_row(row)
                    if cell.complete
                    and metric.better
                    and (metric.spread or self.has_printed(metric))
                    and metric.name in cell.statistics
                    and cell.statistics[metric.name].count == cell.expected
                }
                order = sorted(set(found.values()), reverse=metric.better > 0)
                if len(found) > 1:
                    ranks |= {
                        (row, solver, metric.name): order.index(value) + 1
                        for solver, value in found.items()
                        if value in order[:2]
                    }
        return ranks

    @cached_property
    def notes(self) -> dict[str, str]:
        """The footnotes: each sentence once, with its mark: a, b, …, z, aa, ab, …"""
        sentences = dict.fromkeys(note for cell in self.cells.values() for note in cell.notes)
        return {sentence: _mark(index) for index, sentence in enumerate(sentences)}

    def spread(self, cell: Cell, metric: Quantity) -> str | None:
        """The standard deviation as text, where there is one that says something."""
        found = cell.statistics[metric.name].std
        return metric.text(found) if found is not None and metric.spread else None

    def marks(self, cell: Cell) -> str:
        """The footnote marks of a cell, such as "a,c"."""
        return ",".join(self.notes[note] for note in cell.notes)

    def has_printed(self, metric: Quantity) -> bool:
        """Whether the paper has any value of this quantity."""
        return any(metric.name in cell.printed for cell in self.cells.values())

    @cached_property
    def counted(self) -> str:
        """How many images and seeds the means of a task are over, in words."""
        images: dict[str, set[str]] = defaultdict(set)
        for entry in self.entries:
            images[entry.row].add(entry.image)
        counts = sorted({len(names) for names in images.values()}) or [0]
        words = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
        words += " image" if counts[-1] == 1 else " images"
        seeds = len({entry.seed for entry in self.entries})
        return words if seeds <= 1 else f"{words} and {seeds} seeds"


def _cell(
    row: str,
    solver: str,
    entries: Sequence[Entry],
    expected: int,
    printed: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> Cell:
    done = tuple(entry for entry in entries if entry.status == "done")
    undone = tuple(entry for entry in entries if entry.status != "done")
    names = dict.fromkeys(name for entry in done for name in entry.values)
    statistics = {
        name: Statistic.of(entry.values[name] for entry in done if name in entry.values)
        for name in names
    }
    return Cell(
        row=row,
        solver=solver,
        done=done,
        undone=undone,
        expected=expected,
        statistics={name: found for name, found in statistics.items() if found is not None},
        printed=printed.get(row, {}).get(solver, {}),
        notes=tuple(_notes(done, undone, expected)),
    )


def _with_fid(cell: Cell, results: Results) -> Cell:
    """The cell with the FID of its images, where their features are there."""
    value, count, note = fid_of([results.pictures(entry.key) for entry in cell.done])
    found = {} if value is None else {FID: Statistic(value, None, count)}
    notes = (*cell.notes, note) if note else cell.notes
    return replace(cell, statistics={**cell.statistics, **found}, notes=notes)


def _notes(done: Sequence[Entry], undone: Sequence[Entry], expected: int) -> Iterable[str]:
    """A sentence for each reason why entries are missing."""
    for (status, reason), count in Counter((e.status, e.reason) for e in undone).items():
        reason = " ".join(reason.split()) or "no reason was given."
        share = "" if count == expected else f" on {count} of {expected}"
        yield f"{'Failed' if status == 'failed' else 'Not run'}{share}: {reason}"
    left = expected - len(done) - len(undone)
    if left > 0 and (done or undone):
        yield f"{left} of {expected} not computed yet."


def _mark(index: int) -> str:
    first, last = divmod(index, len(ascii_lowercase))
    return (_mark(first - 1) if first else "") + ascii_lowercase[last]
