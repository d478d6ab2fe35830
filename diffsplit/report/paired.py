"""Two methods on the same images: their differences, and how sure their mean is.

    d_i = a_i − b_i,   d̄ ± t s/√n,   s² = Σ (d_i − d̄)²/(n − 1)

with t the quantile of Student's distribution with n − 1 degrees of freedom. Images differ far more
from each other than methods do, and d_i leaves that out. The values of an image are averaged over
the seeds that both methods have, because two seeds of one image are not independent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from diffsplit.report.quantities import Quantity
from diffsplit.report.summary import Cell, Statistic, Summary
from diffsplit.solvers.intervals import student_quantile

__all__ = ["LEVEL", "Comparison", "compare", "comparisons"]

LEVEL = 0.95
"""Confidence of the intervals."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of two methods on the images that both have done.

    Attributes:
        mean: of the differences, first minus second.
        margin: the confidence interval is mean ± margin; None with fewer than two images.
        share: of the images on which the first is strictly better; None if neither direction is.
        count: images.
    """

    row: str
    first: str
    second: str
    quantity: Quantity
    mean: float
    margin: float | None
    share: float | None
    count: int

    @property
    def clear(self) -> bool:
        """Whether the interval does not hold zero."""
        return self.margin is not None and abs(self.mean) > self.margin


def compare(first: Cell, second: Cell, metric: Quantity) -> Comparison | None:
    """Two methods on one task; None where they have no image with this quantity in common."""
    ours, theirs = _values(first, metric.name), _values(second, metric.name)
    differences = defaultdict(list)
    for image, seed in sorted(ours.keys() & theirs.keys()):
        difference = ours[image, seed] - theirs[image, seed]
        if math.isfinite(difference):
            differences[image].append(difference)
    found = [math.fsum(values) / len(values) for values in differences.values()]
    statistic = Statistic.of(found)
    if statistic is None:
        return None
    margin = None
    if statistic.std is not None:
        quantile = student_quantile(LEVEL, statistic.count - 1)
        margin = quantile * statistic.std / math.sqrt(statistic.count)
    better = sum(metric.better * value > 0 for value in found)
    return Comparison(
        row=first.row,
        first=first.solver,
        second=second.solver,
        quantity=metric,
        mean=statistic.mean,
        margin=margin,
        share=better / len(found) if metric.better else None,
        count=len(found),
    )


def comparisons(summary: Summary) -> list[Comparison]:
    """Every pair of methods of every task, for every quantity of `Summary.compared`."""
    found = []
    for row in summary.facts.rows:
        for first, second in combinations(summary.of_row(row), 2):
            for metric in summary.compared:
                one = compare(first, second, metric)
                if one is not None:
                    found.append(one)
    return found


def _values(cell: Cell, name: str) -> Mapping[tuple[str, int], float]:
    return {(e.image, e.seed): e.values[name] for e in cell.done if name in e.values}
