"""What a report reads: the entries of a run, its pictures, and what the run was.

A report asks a store for nothing else, so that anything with these three methods can be reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from diffsplit.bench.store import Entry

__all__ = ["Facts", "Results"]


class Results(Protocol):
    """The store of a run, as far as a report reads it."""

    def entries(self) -> Sequence[Entry]: ...
    def pictures(self, key: str) -> Mapping[str, Tensor]: ...
    def facts(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Facts:
    """What a run was, in words, and what its table shows.

    Attributes:
        title: of the page and the caption of the table.
        source: the table of the paper whose values are printed beside ours, "" without one.
        machine, version, prior, images: in words, "" where unknown.
        rows: labels of the tasks, in the order of the table.
        solvers: labels of the methods, in the order of the table. Methods come last of which only
            the paper has values.
        metrics: names of the quantities to show, in this order.
        printed: the paper's own values, as text: row, then method, then metric.
        notes: sentences about the run, such as why a metric could not be computed.
    """

    title: str
    source: str
    machine: str
    version: str
    prior: str
    images: str
    rows: tuple[str, ...]
    solvers: tuple[str, ...]
    metrics: tuple[str, ...]
    printed: Mapping[str, Mapping[str, Mapping[str, str]]]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> Facts:
        """The facts of a run; labels that only its entries name come after those it lists."""
        known, entries = results.facts(), results.entries()
        printed = known.get("printed") or {}
        rows = [*known.get("rows", ()), *(entry.row for entry in entries)]
        solvers = [*known.get("solvers", ()), *(entry.solver for entry in entries)]
        solvers += [label for row in rows for label in printed.get(row, {})]
        words = {
            name: str(known.get(name) or "")
            for name in ("title", "source", "machine", "version", "prior", "images")
        }
        words["title"] = words["title"] or "Results"
        return cls(
            **words,
            rows=tuple(dict.fromkeys(rows)),
            solvers=tuple(dict.fromkeys(solvers)),
            metrics=tuple(known.get("metrics") or ("psnr", "ssim", "lpips")),
            printed=printed,
            notes=tuple(known.get("notes") or ()),
        )
