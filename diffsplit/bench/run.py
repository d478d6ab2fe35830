"""A run: what a configuration asks for and a store does not have yet is computed and kept."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from diffsplit.bench.cells import Plan, expand, place_of_batches
from diffsplit.bench.compute import Done, Unit
from diffsplit.bench.config import Config
from diffsplit.bench.executors import in_processes, in_this_process
from diffsplit.bench.store import Store

__all__ = ["Execute", "Progress", "Summary", "run"]

Execute = Callable[[Iterable[Unit]], Iterator[tuple[Unit, Done]]]
"""Computes units, and yields them with their results in any order."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done, total: entries.
        left: seconds that the rest will take, as the solvers' times so far suggest; None if
            nothing is known yet.
        label: of the row and the method that was finished last.
    """

    done: int
    total: int
    left: float | None
    label: str


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        done, failed, missing: entries of each status.
        computed: entries that this run computed; the others were there.
        seconds: wall time.
        solver_seconds: of the solvers alone.
        notes: what could not be done, a sentence each.
    """

    done: int
    failed: int
    missing: int
    computed: int
    seconds: float
    solver_seconds: float
    notes: list[str]


def run(
    config: Config,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    root: Path | None = None,
    execute: Execute | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Summary:
    """Compute what is missing of a benchmark, and keep it in the store of a folder.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        workers: processes with one thread each; 1 computes in this process.
        root: folder of data sets, see `data.find`.
        execute: computes the units instead, for example on a cluster.
        callback: called after each unit.

    Raises:
        InputError: no images are there, or the folder cannot be written to.
    """
    start = time.perf_counter()
    with Store.open(folder, write=True) as store:
        fitted: dict[str, int] = store.facts().get("batches", {})
        plan = expand(config, device, root, fitted)
        store.plan(plan.labels, {**plan.facts, "batches": fitted})
        store.add_all((entry, {}) for entry in plan.known)
        there = store.keys()
        units = _missing(plan, there)
        if execute is None:

            def execute(units: Iterable[Unit]) -> Iterator[tuple[Unit, Done]]:
                if workers > 1:
                    return in_processes(units, workers, device)
                return in_this_process(units, device)

        clock = _Clock(plan, units, workers)
        spent = 0.0
        for unit, done in execute(units):
            store.add_all(
                (entry, {name: torch.tensor(picture) for name, picture in pictures.items()})
                for entry, pictures in zip(done.entries, done.pictures, strict=True)
            )
            if done.fitted is not None:
                place = place_of_batches(
                    unit.method, unit.prior, unit.pixels.shape[1:], device, unit.half
                )
                fitted[place] = min(done.fitted, fitted.get(place, done.fitted))
                store.note("batches", fitted)
            spent += sum(entry.values.get("seconds", 0.0) for entry in done.entries)
            if callback is not None:
                callback(clock.after(unit, done))
        entries = store.entries()
    count = {s: sum(e.status == s for e in entries) for s in ("done", "failed", "missing")}
    computed = sum(len(unit.keys) for unit in units)
    return Summary(
        **count,
        computed=computed,
        seconds=time.perf_counter() - start,
        solver_seconds=spent,
        notes=plan.facts["notes"],
    )


def _missing(plan: Plan, there: set[str]) -> list[Unit]:
    """The units without the images whose entries are there, or come twice."""
    seen, units = set(there), []
    for unit in plan.units:
        wanted = [i for i, key in enumerate(unit.keys) if key not in seen]
        seen.update(unit.keys)
        if wanted:
            units.append(unit if len(wanted) == len(unit.keys) else unit.part(wanted))
    return units


class _Clock:
    """Estimates how long the rest takes, from the seconds an image took of each method."""

    def __init__(self, plan: Plan, units: list[Unit], workers: int) -> None:
        self.workers = workers
        self.total = len(plan.labels)
        self.left = sum(len(unit.keys) for unit in units)
        self.images: dict[tuple[str, str], int] = defaultdict(int)
        for unit in units:
            self.images[unit.row.label, unit.method.label] += len(unit.keys)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.start, self.spent = time.perf_counter(), 0.0

    def after(self, unit: Unit, done: Done) -> Progress:
        """The progress once a unit is done."""
        row, method, count = unit.row.label, unit.method.label, len(unit.keys)
        self.images[row, method] -= count
        self.left -= count
        taken = [entry.values.get("seconds", 0.0) for entry in done.entries]
        self.seconds[method] += taken
        self.spent += sum(taken)
        everything = [value for values in self.seconds.values() for value in values]
        rest = sum(
            images * fmean(self.seconds[label] or everything)
            for (_, label), images in self.images.items()
            if images
        )
        # What is not the solvers' own time is in proportion to it.
        wall = self.workers * (time.perf_counter() - self.start)
        rest *= max(1.0, wall / self.spent) if self.spent > 0 else 1.0
        label = f"{row}: {method}"
        return Progress(self.total - self.left, self.total, rest / self.workers, label)
