"""The solvers of the commands: their settings, the priors they take and the options they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import SIZE, refused, run, with_reasons

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.cli.methods import Method, PurifierName, SolverName
from diffsplit.io.images import load_image
from diffsplit.operators import Identity
from diffsplit.solvers import DCDP, DiffEP, DiffOneBit, LatentDCDP


def test_the_options_of_diff_onebit_reach_it_with_the_defaults_of_the_paper(
    tmp_path: Path, cat: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    check = DiffOneBit.check
    monkeypatch.setattr(DiffOneBit, "check", lambda *a: (seen.append(a[0]), check(*a))[1])
    recover = ("--solver", "diff-onebit", "--prior", prior, "--steps", 1, "--force")
    for task in ("onebit-inpainting", "onebit-cs"):
        path = tmp_path / task
        assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task) == 0
        assert run("recover", path, "-o", tmp_path / "x.png", *recover) == 0
        options = ("--data-step", "exact", "--lam", 0.3)
        assert run("recover", path, "-o", tmp_path / "x.png", *recover, *options) == 0
    assert [(s.lam, s.data_step) for s in seen] == [
        (1.0, "adam"),
        (0.3, "exact"),
        (0.02, "adam"),
        (0.3, "exact"),
    ]


def test_dcdp_takes_each_kind_of_prior(
    tmp_path: Path,
    cat: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, picture = tmp_path / "y", tmp_path / "x.png"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", "motion-deblur") == 0
    runs: list[tuple[str, tuple[str, ...], int]] = [
        (prior, ("dcdp", "--purifier", "ddim"), 21),  # the second round is at timestep 1
        (consistency_prior, ("dcdp", "--purifier", "consistency"), 2),
        (latent_prior, ("dcdp-latent",), 2),
        (latent_prior, ("dcdp-latent", "--purifier", "ddim"), 21),
    ]
    for folder, solver, evaluations in runs:
        options = ("--prior", folder, "--solver", *solver, "--steps", 2, "--force")
        assert run("recover", path, "-o", picture, *options) == 0
        table = capsys.readouterr().out.splitlines()
        (row,) = (line.split("│") for line in table if line.startswith("│"))
        assert (row[1].strip(), row[2].strip()) == (solver[0], str(evaluations))
        assert load_image(picture).shape == (1, 3, SIZE, SIZE)


def test_dcdp_has_the_settings_of_its_paper_for_each_task_and_version() -> None:
    shape = (3, SIZE, SIZE)
    noisy = Problem(Identity(shape), GaussianNoise(0.0))
    blind = Problem(Identity(shape), OneBit(0.5))
    latent, dcdp = SolverName.dcdp_latent, SolverName.dcdp

    assert Method(dcdp).solver(noisy, "inpaint-box") == DCDP.preset(
        "inpaint-box", SIZE, purifier="tweedie"
    )
    assert Method(dcdp, steps=4, purifier=PurifierName.ddim).solver(noisy, "motion-deblur") == (
        DCDP.preset("motion-deblur", SIZE, purifier="ddim", rounds=4)
    )
    consistency = Method(dcdp, purifier=PurifierName.consistency)
    assert consistency.solver(noisy, "super-resolution") == DCDP.preset(
        "super-resolution", SIZE, purifier="consistency"
    )
    for task, approach in (("super-resolution", "latent"), ("gaussian-deblur", "pixel")):
        solver = Method(latent).solver(noisy, task)
        assert solver == LatentDCDP.preset(task, SIZE, purifier="tweedie")
        assert isinstance(solver, LatentDCDP)
        assert solver.consistency == approach
    assert Method(latent).solver(noisy, "unknown") == LatentDCDP(purifier="tweedie")
    assert Method(latent).solver(blind, None) == LatentDCDP(purifier="tweedie", tau=20)
    assert consistency.solver(blind, None) == DCDP(purifier="consistency", tau=20)


def test_the_number_of_steps_reaches_diffep_whether_it_renoises_or_not() -> None:
    problem = Problem(Identity((3, SIZE, SIZE)), GaussianNoise(0.1))
    solver = Method(SolverName.diffep, steps=3).solver(problem, None)
    assert isinstance(solver, DiffEP)
    assert (solver.iterations, solver.levels) == (3, 3)
    assert Method(SolverName.diffep).solver(problem, None) == DiffEP()


@with_reasons(
    (("--purifier", "ddim"), "--purifier belongs to --solver dcdp"),
    (("--solver", "diff-onebit", "--purifier", "consistency"), "--purifier belongs"),
    (("--solver", "dcdp-latent", "--purifier", "consistency"), "choose ddim or tweedie"),
    (("--solver", "dcdp-latent", "--samples", 2), "leave out --samples"),
    (("--solver", "dcdp-latent", "--lam", 1), "--lam belong to"),
    (("--solver", "dcdp", "--purifier", "none"), "--purifier"),
    (("--sampler", "cats-64-consistency"), "--samples 2"),
    (("--solver", "dcdp", "--sampler", "cats-64-consistency"), "--sampler belongs to"),
)
def test_options_of_another_solver_are_refused(
    tmp_path: Path,
    measured: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior", "never loaded")
    assert reason in refused(capsys, tmp_path, *recover, *options)


def test_a_prior_of_another_kind_is_refused_with_the_solver_that_takes_it(
    tmp_path: Path,
    measured: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    solvers: dict[str, tuple[str, ...]] = {
        prior: ("diffep", "diff-onebit", "dcdp"),
        consistency_prior: ("dcdp --purifier consistency",),
        latent_prior: ("dcdp-latent",),
    }
    for folder, takers in solvers.items():
        for others in (set(solvers[other]) for other in solvers if other != folder):
            for solver in others:
                options = ("--solver", *solver.split(), "--prior", folder)
                error = refused(
                    capsys, tmp_path, "recover", measured, "-o", tmp_path / "x.png", *options
                )
                assert f"and --solver {takers[0]} takes it" in error
                assert f"--solver {solver} needs a" in error
    for folder in (consistency_prior, latent_prior):
        picture = tmp_path / "demo.png"
        assert "takes it" in refused(capsys, tmp_path, "demo", "--prior", folder, "-o", picture)


def test_a_sampler_draws_each_sample_in_two_evaluations(
    tmp_path: Path,
    measured: Path,
    prior: str,
    consistency_prior: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior", prior, "--force")
    evaluations = []
    for options in ((), ("--samples", 3, "--sampler", consistency_prior)):
        assert run(*recover, *options) == 0
        (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
        evaluations.append(int(row.split("│")[3]))
    assert evaluations[1] - evaluations[0] == 3 * 2


def test_a_sampler_that_cannot_draw_the_samples_is_refused(
    tmp_path: Path, cat: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("-o", tmp_path / "x.png", "--prior", prior, "--samples", 2)
    error = refused(capsys, tmp_path, "recover", measured, *output, "--sampler", prior)
    assert "takes a consistency model" in error
    blurred = tmp_path / "blurred"
    assert run("measure", cat, "-o", blurred, "--size", SIZE, "--task", "motion-deblur") == 0
    capsys.readouterr()
    error = refused(capsys, tmp_path, "recover", blurred, *output, "--sampler", prior)
    assert "leave it out" in error


def test_without_a_prior_each_solver_loads_the_bundled_one_of_its_kind(
    tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(name: str, **_: object) -> None:
        seen.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("diffsplit.priors.load_prior", load)
    for solver in ("diffep", "diff-onebit", "dcdp", "dcdp-latent"):
        run("recover", measured, "-o", tmp_path / "x.png", "--solver", solver)
    consistency = ("--solver", "dcdp", "--purifier", "consistency")
    run("recover", measured, "-o", tmp_path / "x.png", *consistency)
    assert seen == 3 * ["cats-64"] + ["cats-64-latent", "cats-64-consistency"]
