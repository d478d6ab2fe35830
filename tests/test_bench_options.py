"""What a benchmark may ask of a method and its prior: calibrated intervals, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bench_cases import config, rows_of
from pydantic import ValidationError

from diffsplit import tasks
from diffsplit.bench import compute
from diffsplit.bench.config import Calibration, Method
from diffsplit.bench.data import load
from diffsplit.bench.fingerprint import hash_of_image
from diffsplit.bench.run import run
from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8
from diffsplit.noise import seeded
from diffsplit.priors import EDMPrior, GaussianSpectrum, load_prior
from diffsplit.solvers import DiffEP
from diffsplit.uncertainty import calibrate, coverage


def test_intervals_are_calibrated_on_the_images_that_are_held_out(
    prior: str, tmp_path: Path
) -> None:
    row = {"label": "hole", "task": "inpaint-box", "sigma": 0.1}
    plain = {"solver": "diffep", "settings": {"samples": 3, "levels": 2, "sample_steps": 2}}
    held_out = {"images": 5, "skip": 3, "level": 0.8}
    groups = {**held_out, "groups": 3}
    solvers = [
        {"label": "as it is", **plain},
        {"label": "calibrated", **plain, "calibration": held_out},
        {"label": "groups", **plain, "calibration": groups},
        {"label": "not enough", **plain, "calibration": {"images": 2, "delta": 0.1}},
        {"label": "the same", **plain, "calibration": {"images": 5, "skip": 2}},
        {"label": "nowhere", **plain, "calibration": {"data": "nowhere"}},
        {"label": "elsewhere", **plain, "calibration": {"data": "elsewhere"}},
    ]
    run(config(prior, rows=[row], solvers=solvers, images=2, skip=1), tmp_path)
    entries = {(e.solver, e.image): e for e in rows_of(tmp_path)}
    model, pixels = load_prior(prior), load("cats", 8, 16).pixels
    all_eight = from_uint8(pixels)
    problem = tasks.problem("inpaint-box", (3, 16, 16), sigma=0.1)
    hashes = [hash_of_image(x) for x in pixels]
    solver = DiffEP(samples=3, levels=2, sample_steps=2)

    def streams(indices: range, purpose: str) -> list[torch.Generator]:
        return [seeded(int(hashes[i][:8], 16), f"diffsplit bench {purpose}") for i in indices]

    last = range(3, 8)
    fitted = calibrate(
        solver, problem, model, all_eight[3:], level=0.8, generator=streams(last, "calibrate")
    )
    shown, shown_at = all_eight[1:3], range(1, 3)
    y = problem.measure(shown, generator=streams(shown_at, "measure"))
    result = fitted(problem, y, model, generator=streams(shown_at, "recover"))
    low, high = result.interval(0.9)
    inside = ((shown >= low) & (shown <= high)).flatten(1)
    covered = coverage(result, shown, 0.9)
    hidden = ~problem.operator.pixels.flatten()
    names = sorted({image for _, image in entries})
    for index, name in enumerate(names):
        found = entries["calibrated", name].values
        assert found["coverage"] == pytest.approx(float(covered[index]))
        assert found["coverage_hidden"] == pytest.approx(
            float(inside[index, hidden].double().mean())
        )
        as_it_is, grouped = entries["as it is", name].values, entries["groups", name].values
        assert as_it_is["psnr"] == found["psnr"] == grouped["psnr"]
        assert len({v["coverage"] for v in (as_it_is, found, grouped)}) == 3
        assert "images or more" in entries["not enough", name].reason
        assert "1 of the images" in entries["the same", name].reason
        for place in ("nowhere", "elsewhere"):
            assert entries[place, name].reason.startswith(place)
    run(config(prior, rows=[row], solvers=solvers[1:2], images=2, skip=1), tmp_path / "again")
    again = rows_of(tmp_path / "again")
    assert {e.key for e in again} <= {e.key for e in entries.values()}
    after = {**solvers[1], "calibration": {"images": 5, "level": 0.8}}  # those behind the shown
    run(config(prior, rows=[row], solvers=[after], images=2, skip=1), tmp_path / "after")
    assert {e.key for e in rows_of(tmp_path / "after")} == {e.key for e in again}
    other = {**solvers[1], "calibration": {**held_out, "skip": 4}}
    run(config(prior, rows=[row], solvers=[other], images=2, skip=1), tmp_path / "other")
    assert not {e.key for e in rows_of(tmp_path / "other")} & {e.key for e in again}


def test_a_calibration_that_fails_is_not_tried_for_each_image(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def failing(*parts: object, **options: object) -> None:
        tried.append(1)
        raise InputError("no factor is wide enough.")

    monkeypatch.setattr("diffsplit.bench.compute.calibrate", failing)
    solver = {"label": "a", "solver": "diffep", "settings": {"samples": 2, "levels": 2}}
    solvers = [{**solver, "calibration": {"images": 4}}]
    run(config(prior, solvers=solvers, images=4), tmp_path)
    assert len(tried) == 2  # tasks
    assert {entry.reason for entry in rows_of(tmp_path)} == {"no factor is wide enough."}


@pytest.mark.parametrize(
    ("solver", "settings", "reason"),
    [
        ("linear-baseline", {}, "draws no samples"),
        ("dcdp", {}, "draws no samples"),
        ("diffep", {}, "two samples or more"),
        ("diffep", {"samples": 1}, "two samples or more"),
    ],
)
def test_only_solvers_that_draw_samples_are_calibrated(
    solver: str, settings: dict[str, int], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        Method(label="a", solver=solver, settings=settings, calibration=Calibration())


def test_a_sampler_computes_in_half_precision_too(
    prior: str, consistency_prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = compute.solver_of

    def watched(*parts: Any) -> Any:
        solver = plain(*parts)
        seen.append(solver.sampler.precision)
        return solver

    monkeypatch.setattr(compute, "solver_of", watched)
    settings = {"samples": 2, "sampler": consistency_prior}
    solvers = [{"label": "a", "solver": "diffep", "settings": settings}]
    rows = [{"label": "1-bit", "task": "onebit-cs", "ratio": 0.5, "operator": "hadamard"}]
    run(config(prior, rows=rows, solvers=solvers, images=1, half=True), tmp_path)
    assert seen == [torch.bfloat16]
    assert [entry.status for entry in rows_of(tmp_path)] == ["done"]


def test_half_precision_is_another_result_and_leaves_closed_forms_as_they_are(
    prior: str, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    GaussianSpectrum.fit(from_uint8(load("cats", 8, 16).pixels)).save(closed)
    model, random = load_prior(prior), torch.Generator().manual_seed(0)
    assert isinstance(model, EDMPrior)
    with torch.no_grad():  # its last layer is zero as it is
        for weight in model.networks[0].parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=random))
    model.save(tmp_path / "network")
    steps = {"solver": "dcdp", "settings": {"rounds": 2, "tau": 3}}
    solvers = [{"label": "network", **steps}, {"label": "closed", **steps, "prior": str(closed)}]
    found = {}
    for half in (False, True):
        run(config(str(tmp_path / "network"), solvers=solvers, half=half), tmp_path / str(half))
        found[half] = {(e.solver, e.row, e.image): e for e in rows_of(tmp_path / str(half))}
    for cell, full in found[False].items():
        half_entry = found[True][cell]
        assert full.key != half_entry.key
        assert half_entry.status == "done"
        same = full.values["psnr"] == half_entry.values["psnr"]
        assert same == (cell[0] == "closed")
        assert half_entry.values["psnr"] == pytest.approx(full.values["psnr"], abs=0.3)
