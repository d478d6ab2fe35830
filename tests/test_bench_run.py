"""Runs of a benchmark: repeatable, resumable, whatever the batch and whatever fails."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_cases import FAST, QUICK, TASKS, config, numbers, rows_of

from diffsplit import tasks
from diffsplit.bench import compute
from diffsplit.bench.run import run
from diffsplit.bench.store import Store
from diffsplit.errors import DivergenceError, InputError
from diffsplit.priors import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers import SOLVERS, DiffOneBit
from diffsplit.solvers.base import Algorithm


def test_the_same_configuration_twice_gives_the_same_numbers(prior: str, tmp_path: Path) -> None:
    run(config(prior), tmp_path / "a")
    run(config(prior), tmp_path / "b")
    first = rows_of(tmp_path / "a")
    assert len(first) == 16
    assert {entry.status for entry in first} == {"done"}
    assert numbers(first) == numbers(rows_of(tmp_path / "b"))


def test_what_is_there_is_not_computed_again_and_a_new_solver_is(
    prior: str, tmp_path: Path
) -> None:
    assert run(config(prior), tmp_path).computed == 16
    before = numbers(rows_of(tmp_path))
    assert run(config(prior), tmp_path).computed == 0
    new = {"label": "Diff-OneBit", "solver": "diff-onebit", "settings": QUICK}
    summary = run(config(prior, solvers=[new, *FAST]), tmp_path)
    assert (summary.done, summary.computed) == (24, 8)
    after = numbers(rows_of(tmp_path))
    assert {key: after[key] for key in before} == before
    assert run(config(prior, images=5), tmp_path).computed == 4
    assert run(config(prior, seeds=[0, 1]), tmp_path).computed == 16
    assert run(config(prior), tmp_path).done == 16


def test_tasks_that_measure_the_same_sums_share_their_operator(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = {"operator": "gaussian", "rows": 20}
    rows = [
        {"label": "1 bit", "task": "onebit-cs", "sigma": 0.5, **sums},
        {"label": "more noise", "task": "onebit-cs", "sigma": 1.5, **sums},
        {"label": "logistic", "task": "logistic", **sums},
        {"label": "other sums", "task": "logistic", "operator": "gaussian", "rows": 21},
        {"label": "half", "task": "inpaint-random", "sigma": 0.1},
    ]
    built: list[int] = []
    plain = tasks.GaussianMatrix

    def counted(*parts: Any) -> Any:
        built.append(1)
        return plain(*parts)

    monkeypatch.setattr(tasks, "GaussianMatrix", counted)
    together = _run(tmp_path / "together", prior, rows=rows, seeds=[0, 1], images=2)
    assert len(built) == 2 * 4  # rows come before seeds, so that a seed does not keep its matrix
    alone = [_run(tmp_path / r["label"], prior, rows=[r], seeds=[0, 1], images=2) for r in rows]
    assert numbers(together) == numbers([entry for entries in alone for entry in entries])
    built.clear()
    _run(tmp_path / "once", prior, rows=rows, images=2)
    assert len(built) == 2


def test_another_label_is_no_other_result(prior: str, tmp_path: Path) -> None:
    run(config(prior), tmp_path)
    renamed = [{**FAST[0], "label": "Aᵀ y"}, FAST[1]]
    assert run(config(prior, solvers=renamed), tmp_path).computed == 0
    assert {entry.solver for entry in rows_of(tmp_path)} == {"Aᵀ y", "DCDP"}


def test_another_seed_weight_or_setting_is_another_result(prior: str, tmp_path: Path) -> None:
    kept = numbers(_run(tmp_path, prior))
    assert not set(kept) & set(numbers(_run(tmp_path, prior, seeds=[1])))
    louder = [{**task, "sigma": 0.7} for task in TASKS]
    assert not set(kept) & set(numbers(_run(tmp_path, prior, rows=louder)))
    shared = set(kept) & set(numbers(_run(tmp_path, _changed(prior, tmp_path / "other"))))
    assert {kept[key][0][1] for key in shared} == {"back-projection"}  # which needs no prior


def _run(folder: Path, prior: str, **fields: Any) -> Any:
    run(config(prior, **fields), folder)
    return rows_of(folder)


def _changed(prior: str, folder: Path) -> str:
    """A copy of a prior with other weights."""
    from diffsplit.priors import EDMPrior, load_prior

    model = load_prior(prior)
    assert isinstance(model, EDMPrior)
    with torch.no_grad():
        for network in model.networks:
            next(network.parameters()).add_(0.01)
    model.save(folder)
    return str(folder)


def test_the_batch_that_an_image_is_in_does_not_matter(prior: str, tmp_path: Path) -> None:
    alone = {e.key: e.values for e in _run(tmp_path / "1", prior, batch=1)}
    together = {e.key: e.values for e in _run(tmp_path / "4", prior, batch=4)}
    assert set(alone) == set(together)
    for key, values in alone.items():
        for name in ("psnr", "ssim", "cosine", "nfe"):
            assert values[name] == pytest.approx(together[key][name], rel=1e-3, abs=1e-3)


class Broken(DiffOneBit):
    """Fails on images whose first pixel says so."""

    error: type[Exception] = RuntimeError

    def _solve(self, problem: Problem, y: Any, prior: Denoiser, generator: Any) -> Algorithm:
        if len(y) > 1 or y.sum() > 0:
            raise self.error("it broke")
        return super()._solve(problem, y, prior, generator)


@pytest.mark.parametrize("error", [RuntimeError, DivergenceError, InputError])
def test_a_cell_that_fails_says_why_and_the_others_go_on(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setitem(SOLVERS, "broken", Broken)
    monkeypatch.setattr(Broken, "error", error)
    summary = run(
        config(prior, solvers=[{"label": "B", "solver": "broken", "settings": QUICK}, *FAST]),
        tmp_path,
    )
    assert summary.done >= 16
    assert summary.failed > 0
    for entry in rows_of(tmp_path):
        assert (entry.status == "failed") <= (entry.solver == "B")
        assert ("it broke" in entry.reason) == (entry.status == "failed")


def test_an_image_that_diverges_takes_no_other_of_its_batch_with_it(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOLVERS, "broken", Broken)
    monkeypatch.setattr(Broken, "error", DivergenceError)
    broken = [{"label": "B", "solver": "broken", "settings": QUICK}]
    run(config(prior, solvers=broken, images=8, batch=8), tmp_path)
    assert set(Counter(e.status for e in rows_of(tmp_path))) == {"done", "failed"}


class Hungry(DiffOneBit):
    """Has memory for two images, or for none."""

    error: Exception = RuntimeError("CUDA out of memory. Tried to allocate 1 GiB.")
    room = 2

    def _solve(self, problem: Problem, y: Any, prior: Denoiser, generator: Any) -> Algorithm:
        if len(y) > self.room:
            raise self.error
        return super()._solve(problem, y, prior, generator)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 1 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        torch.OutOfMemoryError("HIP"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(SOLVERS, "hungry", Hungry)
    monkeypatch.setattr(Hungry, "error", error)
    hungry = config(
        prior,
        solvers=[{"label": "H", "solver": "hungry", "settings": QUICK}],
        images=8,
        batch=8,
    )
    assert run(hungry, tmp_path).done == 16
    with Store.open(tmp_path) as store:
        ((place, most),) = store.facts()["batches"].items()
    assert most == 2
    for part in ("hungry", '"adam_steps": 2', prior, "(3, 16, 16)", "cpu"):
        assert part in place
    sizes = []
    original = compute.Worker.run
    monkeypatch.setattr(
        compute.Worker,
        "run",
        lambda self, unit: sizes.append(len(unit.keys)) or original(self, unit),
    )
    run(hungry.model_copy(update={"seeds": [1]}), tmp_path)
    assert sizes == [2] * 8
    larger = hungry.model_copy(update={"seeds": [2], "size": 32})
    sizes.clear()
    run(larger, tmp_path)
    assert sizes[0] == 8, "what was found out for one size is not believed of another"


def test_an_image_that_does_not_fit_alone_says_so_and_the_others_go_on(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOLVERS, "hungry", Hungry)
    monkeypatch.setattr(Hungry, "room", 0)
    solvers = [{"label": "H", "solver": "hungry", "settings": QUICK}, *FAST]
    summary = run(config(prior, solvers=solvers), tmp_path)
    assert (summary.done, summary.failed) == (16, 8)
    reasons = {entry.reason for entry in rows_of(tmp_path) if entry.status == "failed"}
    assert reasons == {"One image does not fit the memory of the device."}


def test_a_solver_that_is_missing_is_reported_and_computed_once_it_is_there(
    prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"label": "New", "solver": "diff-onebit-2", "settings": QUICK}
    summary = run(config(prior, solvers=[method, *FAST]), tmp_path)
    assert (summary.done, summary.missing) == (16, 8)
    missing = [entry for entry in rows_of(tmp_path) if entry.status == "missing"]
    assert {entry.solver for entry in missing} == {"New"}
    assert "no solver 'diff-onebit-2'; did you mean diff-onebit?" in missing[0].reason
    monkeypatch.setitem(SOLVERS, "diff-onebit-2", DiffOneBit)
    summary = run(config(prior, solvers=[method, *FAST]), tmp_path)
    assert (summary.done, summary.missing, summary.computed) == (24, 0, 8)


def test_a_prior_or_images_that_are_missing_are_reported_in_their_cells(
    prior: str, tmp_path: Path
) -> None:
    consistency = {"label": "CM", "solver": "dcdp", "purifier": "consistency"}
    elsewhere = {"label": "elsewhere", "task": "denoise", "data": "imagenet"}
    run(config(prior, solvers=[*FAST, consistency], rows=[*TASKS, elsewhere]), tmp_path)
    for entry in rows_of(tmp_path):
        if entry.row == "elsewhere":
            assert entry.status == "missing"
            assert "DIFFSPLIT_DATA" in entry.reason
        elif entry.solver == "CM":
            assert entry.status == "failed"
            assert "set priors.consistency" in entry.reason
        else:
            assert entry.status == "done"


def test_images_that_are_nowhere_stop_the_run_with_a_sentence(prior: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"get them from https://.*put them into"):
        run(config(prior, data="lsun-bedrooms"), tmp_path)


def test_pictures_and_intervals_are_kept(prior: str, tmp_path: Path) -> None:
    solver = {"label": "DiffEP", "solver": "diffep", "settings": {"samples": 2, "levels": 2}}
    run(config(prior, rows=TASKS[1:], solvers=[solver]), tmp_path)
    with Store.open(tmp_path) as store:
        first, second, *_ = store.entries()
        shapes = {name: tuple(x.shape) for name, x in store.pictures(first.key).items()}
        full = (3, 16, 16)
        assert shapes == {
            "truth": full,
            "measurement": full,
            "answer": full,
            "std": (1, 16, 16),
        }
        assert store.pictures(second.key) == {}
        levels = [first.values[f"coverage_{level}"] for level in (50, 60, 70, 80, 90, 95)]
        assert levels == sorted(levels)
        assert first.values["coverage"] == first.values["coverage_90"]
        ratio = first.values["predicted_error"] / first.values["squared_error"]
        assert first.values["predicted_ratio"] == pytest.approx(ratio)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_twenty_times_ends_with_the_rows_of_an_undisturbed_one(
    prior: str, tmp_path: Path, seed: int
) -> None:
    script = Path(__file__).with_name("bench_killing.py")
    command = [sys.executable, str(script), prior, str(tmp_path), "20", str(seed)]
    subprocess.run(command, check=True, timeout=280)
    undisturbed, killed = rows_of(tmp_path / "undisturbed"), rows_of(tmp_path / "killed")
    assert len(undisturbed) == 16
    assert numbers(killed) == numbers(undisturbed)
    assert [entry.key for entry in killed] == [entry.key for entry in undisturbed]
    with Store.open(tmp_path / "undisturbed") as first, Store.open(tmp_path / "killed") as second:
        for entry in undisturbed:
            kept, found = first.pictures(entry.key), second.pictures(entry.key)
            assert set(kept) == set(found) == {"truth", "measurement", "answer"}
            assert all(torch.equal(kept[name], found[name]) for name in kept)
