"""`diffsplit recover`: pictures, figures, traces and numbers, by every solver that there is."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from command_line import SIZE, refused, run, with_reasons
from PIL import Image

from diffsplit import Problem, channels, operators
from diffsplit.cli.choice import solver_with
from diffsplit.io.images import load_image
from diffsplit.io.measurements import save
from diffsplit.priors import GaussianPrior, GaussianSpectrum
from diffsplit.solvers import DCDP, SOLVERS, Answer, DiffEP, DiffOneBit, Solver, State
from diffsplit.tasks import TASKS


@dataclass(frozen=True)
class Toy(Solver):
    """Zeros, a step at a time. The second sentence is not listed."""

    rounds: int = 2
    samples: int = 1
    step_fields: ClassVar[tuple[str, ...]] = ("rounds",)
    interrupted: ClassVar[bool] = False

    @property
    def requires(self) -> None:
        return None

    def _solve(self, problem: Any, y: Any, prior: Any, generator: Any) -> Any:
        zeros = torch.zeros(len(y), *problem.operator.shape_in)
        for _ in range(self.rounds):
            if self.interrupted:
                raise KeyboardInterrupt
            yield State(1.0, zeros)
        never = torch.zeros(len(y), dtype=torch.bool)
        return Answer(zeros, converged=never, reason="zeros are no fixed point.")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SOLVERS, "toy", Toy)
    return "toy"


def table(out: str) -> list[list[str]]:
    """The cells of the rows that were printed."""
    lines = (line for line in out.splitlines() if line.startswith("│"))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_new_solver_is_listed_runs_and_has_the_options_of_its_parameters(
    tmp_path: Path, measured: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("solvers") == 0
    assert ["toy", "–", "–", "any", "problem"] in map(
        str.split, capsys.readouterr().out.splitlines()
    )
    trace, picture = tmp_path / "trace.csv", tmp_path / "x.png"
    recover = ("recover", measured, "-o", picture, "--solver", toy)
    assert run(*recover, "--steps", 3, "--samples", 2, "--trace", trace) == 0
    assert len(trace.read_text("utf-8").splitlines()) == 1 + 3
    assert load_image(picture).abs().max() < 0.01
    capsys.readouterr()
    error = refused(capsys, tmp_path, *recover, "--force", "--sampler", "cats-64-consistency")
    assert "--sampler belongs to --solver diffep; leave it out" in error
    for option in (("--prior", "cats-64"), ("--half",)):
        error = refused(capsys, tmp_path, *recover, "--force", *option)
        assert f"needs no prior; leave out {option[0]}" in error


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_is_recovered_from_every_task(
    tmp_path: Path, cat: Path, prior: str, task: str
) -> None:
    path = tmp_path / "y"
    sigma = ("--sigma", 0.1) if task == "quantized" else ()
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", task, *sigma) == 0
    options = ("--solver", "dcdp", "--prior", prior, "--steps", 2)
    assert run("recover", path, "-o", tmp_path / "x.png", *options) == 0
    assert load_image(tmp_path / "x.png").shape == (1, 3, SIZE, SIZE)


def test_recovering_writes_picture_figure_trace_and_prints_the_quality(
    tmp_path: Path, cat: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, figure, trace = (tmp_path / n for n in ("x.png", "figure.png", "trace.csv"))
    arguments = ("--truth", cat, "--figure", figure, "--trace", trace, "--samples", 2)
    assert run("recover", measured, "-o", picture, "--prior", prior, "--steps", 3, *arguments) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("PSNR", "SSIM", "sign consistency", "NFE", "seconds"))
    assert re.search(r"PSNR by the solver's own estimate of its error: -?\d+\.\d dB\.", out)
    assert load_image(picture).shape == (1, 3, SIZE, SIZE)
    assert load_image(figure).shape[-1] >= 5 * 192  # truth, Aᵀy, recovery, sample, std
    with trace.open() as file:
        rows = list(csv.DictReader(file))
    assert 1 <= len(rows) <= 3  # of the estimate, not of the samples
    assert {"step", "image", "sigma", "misfit", "sign_consistency"} <= set(rows[0])


@pytest.mark.parametrize("count", [1, 2])
def test_an_interval_becomes_two_pictures_around_the_recovery_and_a_figure(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    problem = Problem(operators.Identity((3, SIZE, SIZE)), channels.OneBit(sigma=0.5))
    generator = torch.Generator().manual_seed(0)
    y = problem.measure(torch.zeros(count, 3, SIZE, SIZE), generator=generator)
    save(tmp_path / "y", problem, y)
    options = ("--prior", prior, "--steps", 2, "--samples", 3, "--interval", 0.8)
    recover = ("recover", tmp_path / "y", "-o", tmp_path / "x.png", *options)
    assert run(*recover) == 0
    low, middle, high = (load_image(tmp_path / f"x{part}.png") for part in ("-low", "", "-high"))
    assert low.shape == middle.shape == high.shape
    assert bool((low <= middle).all() & (middle <= high).all())
    assert (high - low).mean() > 0.05
    figure = load_image(tmp_path / "x-interval.png")
    assert figure.shape[-1] > count * 192
    (tmp_path / "x.png").unlink()
    capsys.readouterr()
    assert "x-low.png: exists" in refused(capsys, tmp_path, *recover)


def test_gray_measurements_and_a_gray_prior_give_a_gray_picture(
    tmp_path: Path, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, picture = tmp_path / "y", tmp_path / "x.png"
    prior = GaussianPrior((1, SIZE, SIZE), 0.0, 0.25)
    monkeypatch.setattr("diffsplit.cli.recover.load_prior", lambda *_, **__: prior)
    assert run("measure", cat, "-o", path, "--size", SIZE, "--gray") == 0
    options = ("--truth", cat, "--figure", tmp_path / "figure.png")
    assert run("recover", path, "-o", picture, *options) == 0
    with Image.open(picture) as image:
        assert (image.mode, image.size) == ("L", (SIZE, SIZE))


@pytest.mark.parametrize("solver", ["diffep", "diff-onebit"])
def test_the_same_seed_recovers_the_same_picture(
    tmp_path: Path, measured: Path, prior: str, solver: str
) -> None:
    for name in ("a.png", "b.png"):
        options = ("--solver", solver, "--prior", prior, "--steps", 2)
        assert run("recover", measured, "-o", tmp_path / name, *options) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_in_half_precision_nearly_the_same_picture_comes_back(
    tmp_path: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = []
    for i, option in enumerate(((), ("--half",))):
        assert run("recover", measured, "-o", tmp_path / f"{i}.png", "--prior", prior, *option) == 0
        pictures.append(load_image(tmp_path / f"{i}.png"))
    difference = (pictures[0] - pictures[1]).abs().mean()
    assert difference < 0.05
    capsys.readouterr()
    closed_form = tmp_path / "gaussian"
    GaussianSpectrum(torch.ones(3, SIZE, SIZE)).save(closed_form)
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior", closed_form, "--half")
    assert "half precision" in refused(capsys, tmp_path, *recover)


def test_a_picture_that_does_not_explain_its_measurements_gets_a_warning(
    tmp_path: Path, cat: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = tmp_path / "y", tmp_path / "x.png"
    assert run("measure", cat, "-o", path, "--size", SIZE, "--task", "super-resolution") == 0
    warnings = {}
    for solver in (toy, "bicubic"):
        capsys.readouterr()
        assert run("recover", path, "-o", picture, "--force", "--solver", solver) == 0
        warnings[solver] = capsys.readouterr().err.splitlines()
    assert warnings[toy][0] == "Warning: zeros are no fixed point."
    assert "does not explain the measurements" in warnings[toy][1]
    assert warnings["bicubic"] == []  # a linear estimate does not claim to
    blurred = ("--task", "denoise", "--sigma", 0.5, "--force")
    assert run("measure", cat, "-o", path, "--size", SIZE, *blurred) == 0
    capsys.readouterr()
    assert run("recover", path, "-o", picture, "--force", "--solver", "wiener") == 0
    assert capsys.readouterr().err == ""


def test_an_interrupted_run_leaves_the_older_picture(
    tmp_path: Path,
    measured: Path,
    toy: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Toy, "interrupted", True)
    (tmp_path / "x.png").write_bytes(b"precious")
    assert run("recover", measured, "-o", tmp_path / "x.png", "--solver", toy, "--force") == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    assert (tmp_path / "x.png").read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "cat.safetensors", "x.png"}


def test_options_set_the_parameters_of_their_solver() -> None:
    assert solver_with("diffep", 3, samples=2) == (
        DiffEP,
        {"samples": 2, "iterations": 3, "levels": 3},
    )
    assert solver_with("diff-onebit", None, lam=0.3) == (DiffOneBit, {"lam": 0.3})
    assert solver_with("dcdp", 4, purifier="ddim", lam=None) == (
        DCDP,
        {"purifier": "ddim", "rounds": 4},
    )


@with_reasons(
    (("--purifier", "ddim"), "--purifier belongs to --solver dcdp or dcdp-latent"),
    (("--ending", "paper"), "--ending belongs to --solver dcdp or dcdp-latent"),
    (("--solver", "dcdp-latent", "--purifier", "consistency"), "'ddim' or 'tweedie'"),
    (("--solver", "dcdp-latent", "--samples", 2), "--samples belongs to --solver diffep"),
    (("--solver", "dcdp", "--lam", 1), "--lam belongs to --solver diff-onebit"),
    (("--solver", "dcdp", "--purifier", "none"), "purifier"),
    (("--solver", "diff-onebit", "--lam", "nan"), "lam"),
    (("--solver", "diff-onebit", "--data-step", "sgd"), "'adam' or 'exact'"),
    (("--solver", "wiener", "--steps", 2), "--steps belongs to --solver diffep"),
    (("--solver", "dcdp", "--interval", 0.9), "dcdp draws none; leave it out"),
    (("--interval", 90), "a level lies between 0 and 1"),
    (("--interval", 0.9, "--samples", 1), "--interval takes two samples or more"),
    (("--solver", "diff-ep"), "did you mean 'diffep'"),
    (("--prior", "nobody"), "no such prior"),
    (("--device", "abacus"), "is no device"),
)
def test_options_of_another_solver_or_out_of_range_are_refused(
    tmp_path: Path,
    measured: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    recover = ("recover", measured, "-o", tmp_path / "x.png")
    assert reason in refused(capsys, tmp_path, *recover, *options)


def test_a_prior_of_another_kind_or_size_is_refused_before_an_operator_is_built(
    tmp_path: Path,
    cat: Path,
    measured: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = tmp_path / "large"
    assert run("measure", cat, "-o", large, "--size", 32) == 0
    capsys.readouterr()
    monkeypatch.setattr("diffsplit.cli.recover.load", None)
    for file, folder, solver, reason in (
        (large, prior, "diffep", "(3, 16, 16), and (3, 32, 32) is wanted"),
        (measured, consistency_prior, "dcdp", "needs a diffusion model"),
        (measured, prior, "dcdp --purifier consistency", "needs a consistency model"),
        (measured, prior, "dcdp-latent", "needs a latent diffusion model"),
        (measured, latent_prior, "diff-onebit", "needs a diffusion model"),
    ):
        options = ("--solver", *solver.split(), "--prior", folder)
        picture = tmp_path / "x.png"
        assert reason in refused(capsys, tmp_path, "recover", file, "-o", picture, *options)


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
    ]
    for folder, solver, evaluations in runs:
        capsys.readouterr()
        options = ("--prior", folder, "--solver", *solver, "--steps", 2, "--force")
        assert run("recover", path, "-o", picture, *options) == 0
        (row,) = table(capsys.readouterr().out)
        assert row[:2] == [solver[0], str(evaluations)]


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
        evaluations.append(int(table(capsys.readouterr().out)[0][2]))
    assert evaluations[1] - evaluations[0] == 3 * 2
    error = refused(capsys, tmp_path, *recover, "--samples", 3, "--sampler", prior)
    assert "the sampler is a consistency model" in error


def test_without_a_prior_each_solver_loads_the_bundled_one_of_its_kind(
    tmp_path: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(name: str, **_: object) -> None:
        seen.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("diffsplit.cli.recover.load_prior", load)
    for solver in ("diffep", "dcdp-latent", "dcdp --purifier consistency"):
        run("recover", measured, "-o", tmp_path / "x.png", "--solver", *solver.split())
    assert seen == ["cats-64", "cats-64-latent", "cats-64-consistency"]
