"""Paired comparison of two methods, against SciPy and against what pairing is good for."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from runs_to_report import MemoryStore, done, rich_store

from diffsplit.report.paired import compare, comparisons
from diffsplit.report.quantities import quantity
from diffsplit.report.summary import Summary
from diffsplit.report.tables import comparisons_csv

PSNR = quantity("psnr")


def pair(first: list[float], second: list[float], name: str = "psnr") -> Summary:
    entries = [
        done("r", solver, f"image {i}", **{name: value})
        for solver, values in (("A", first), ("B", second))
        for i, value in enumerate(values)
    ]
    return Summary(MemoryStore(entries, {"metrics": [name]}))


def test_the_interval_is_that_of_students_paired_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    hard = 5 * torch.randn(12, generator=generator)
    a = (20 + hard + torch.randn(12, generator=generator)).tolist()
    b = (21 + hard + torch.randn(12, generator=generator)).tolist()
    (one,) = comparisons(pair(a, b))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert one.margin is not None
    assert one.mean - one.margin == pytest.approx(low, rel=1e-9)
    assert one.mean + one.margin == pytest.approx(high, rel=1e-9)
    assert one.share == sum(x > y for x, y in zip(a, b, strict=True)) / 12
    assert one.count == 12


def test_by_hand_three_differences_have_the_mean_and_margin_of_the_textbook() -> None:
    (one,) = comparisons(pair([21.0, 25.0, 30.0], [20.0, 23.0, 27.0]))
    assert one.mean == pytest.approx(2.0)  # of 1, 2, 3, whose deviation is 1
    assert one.margin == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t of 2 degrees, 97.5 %
    assert one.share == 1.0
    assert not one.clear


def test_pairing_sees_a_small_gain_that_the_spread_over_images_hides() -> None:
    base = [10.0, 20.0, 30.0, 40.0]
    (one,) = comparisons(pair([x + 0.1 + 0.01 * (i % 2) for i, x in enumerate(base)], base))
    assert one.clear
    assert one.mean == pytest.approx(0.105)


def test_less_is_better_where_a_quantity_says_so() -> None:
    (one,) = comparisons(pair([0.1, 0.2, 0.5], [0.2, 0.4, 0.4], "lpips"))
    assert one.share == pytest.approx(2 / 3)
    (tie,) = comparisons(pair([0.1, 0.2], [0.1, 0.2], "lpips"))
    assert (tie.share, tie.mean, tie.margin) == (0.0, 0.0, 0.0)


def test_seeds_of_one_image_count_as_one_image() -> None:
    entries = [
        done("r", solver, image, seed, psnr=20.0 + seed * gain)
        for solver, gain in (("A", 1.0), ("B", 0.0))
        for image in "ij"
        for seed in (0, 1, 2)
    ]
    (one,) = comparisons(Summary(MemoryStore(entries, {"metrics": ["psnr"]})))
    assert (one.count, one.mean, one.margin) == (2, 1.0, 0.0)


def test_only_images_that_both_have_are_compared_and_one_has_no_interval() -> None:
    entries = [done("r", "A", i, psnr=20.0) for i in "xy"] + [done("r", "B", "y", psnr=19.0)]
    summary = Summary(MemoryStore(entries))
    one = compare(summary.cells["r", "A"], summary.cells["r", "B"], PSNR)
    assert one is not None
    assert (one.count, one.mean, one.margin, one.clear) == (1, 1.0, None, False)
    entries = [done("r", "A", "x", psnr=20.0), done("r", "B", "y", psnr=19.0)]
    assert comparisons(Summary(MemoryStore(entries))) == []


def test_every_pair_of_every_task_is_compared_and_written() -> None:
    found = comparisons(Summary(rich_store()))
    assert {(one.first, one.second) for one in found} == {
        ("DCDP, V2", "DiffEP"),
        ("DCDP, V2", "Bicubic"),
        ("DiffEP", "Bicubic"),
    }
    assert len(found) == 2 * 3 * 3
    lines = list(csv.DictReader(io.StringIO(comparisons_csv(found))))
    assert len(lines) == len(found)
    assert float(lines[0]["mean_difference"]) == found[0].mean


def test_costs_that_a_solver_has_once_for_a_batch_are_not_compared_image_by_image() -> None:
    entries = [
        done("r", s, i, psnr=20.0, seconds=1.0 + d) for s in "AB" for i, d in (("x", 0), ("y", 1))
    ]
    found = comparisons(Summary(MemoryStore(entries, {"metrics": ["psnr", "seconds", "nfe"]})))
    assert [one.quantity.name for one in found] == ["psnr"]
