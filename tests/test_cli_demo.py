"""`diffsplit demo`: its figure and table hold what belongs to each task, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import refused, run, with_reasons

from diffsplit.io.images import load_image
from diffsplit.priors import EDMPrior, load_prior
from diffsplit.priors.edm import build_unet


def test_the_demo_draws_six_rows_and_prints_a_table(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--prior", prior, "--images", 2, "--samples", 2, "--rows", 40)
    for _ in range(2):  # its own default output needs no --force
        assert run("demo", *options) == 0
    out = capsys.readouterr().out
    assert "2 cats of 16×16 pixels, 40 bits each, σ = 0.5" in out
    assert "DiffOneBit" in out
    assert "DiffEP" in out
    figure = load_image(tmp_path / "diffsplit-demo.png")
    assert figure.shape[-2] == 6 * (128 + 4) - 4
    assert run("demo", *options, "--task", "logistic") == 0
    figures = sorted(path.name for path in tmp_path.iterdir())
    assert figures == ["diffsplit-demo-logistic.png", "diffsplit-demo.png"]


@pytest.mark.parametrize("task", ["logistic", "onebit-inpainting", "quantized"])
def test_the_demo_shows_every_task_of_few_bits(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    options = ("--prior", prior, "--images", 1, "--samples", 2, "-o", tmp_path / "x.png")
    rows = () if task == "onebit-inpainting" else ("--rows", 40)
    assert run("demo", "--task", task, *rows, *options) == 0
    out = capsys.readouterr().out
    title = {
        "logistic": "40 bits each, logistic",
        "onebit-inpainting": "384 bits each, σ = 0.5",
        "quantized": "40 measurements of 4 bits each, σ = 0.5",
    }
    assert f"1 cat of 16×16 pixels, {title[task]}" in out
    assert "sign consistency" in out
    assert load_image(tmp_path / "x.png").shape[-2] == 6 * (128 + 4) - 4


@pytest.mark.parametrize(
    ("task", "baseline"),
    [
        ("inpaint-box", "mean-fill"),
        ("super-resolution", "bicubic"),
        ("motion-deblur", "wiener"),
    ],
)
def test_the_demo_of_a_restoration_compares_baseline_dcdp_and_diffep(
    tmp_path: Path,
    prior: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    baseline: str,
) -> None:
    monkeypatch.setattr("diffsplit.cli.gallery.bundled_priors", lambda: ["cats-64"])
    options = ("--prior", prior, "--images", 1, "--samples", 2, "-o", tmp_path / "x.png")
    assert run("demo", "--task", task, *options) == 0
    out = capsys.readouterr().out
    methods = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    versions = ["DCDP (V1)", "DCDP (V2)"]
    assert methods == [baseline, *versions, "DiffEP, mean", "DiffEP, 2 samples"]
    assert "left out, since no bundled prior fits: DCDP (CM), DCDP, latent" in out
    assert "sign consistency" not in out
    rows = 8  # truth, measurement, baseline, two of DCDP, DiffEP's mean, sample and deviation
    assert load_image(tmp_path / "x.png").shape[-2] == rows * (128 + 4) - 4


def test_the_demo_takes_in_the_bundled_priors_that_fit_its_images(
    tmp_path: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {"cats-64-consistency": consistency_prior, "cats-64-latent": latent_prior}
    monkeypatch.setattr("diffsplit.cli.gallery.bundled_priors", lambda: list(folders))
    monkeypatch.setattr(
        "diffsplit.cli.gallery.load_prior", lambda name, **_: load_prior(folders.get(name, name))
    )
    options = ("--images", 1, "--samples", 2, "--force", "-o", tmp_path / "x.png")
    assert run("demo", "--task", "denoise", "--prior", prior, *options) == 0
    out = capsys.readouterr().out
    assert "DCDP (CM)" in out
    assert "DCDP, latent" in out
    assert "left out" not in out
    assert load_image(tmp_path / "x.png").shape[-2] == 10 * (128 + 4) - 4
    small = tmp_path / "small"
    EDMPrior(build_unet(8, 2, (16, 32)).eval(), sigma_data=0.5).save(small)
    assert run("demo", "--task", "denoise", "--prior", small, *options) == 0
    assert "left out" in capsys.readouterr().out


@with_reasons(
    (("--task", "denoise", "--rows", 3), "has no rows"),
    (("--task", "inpaint-box", "--operator", "dct"), "has no operator"),
    (("--task", "logistic", "--sigma", 0.5), "has no sigma"),
    (("--sigma", 0), "sigma > 0"),
    (("--sigma", "nan"), "sigma"),
    (("--prior", "nobody"), "no such prior"),
)
def test_the_demo_refuses_options_that_do_not_belong_to_its_task(
    tmp_path: Path,
    prior: str,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    demo = ("demo", "--prior", prior, "-o", tmp_path / "x.png", "--images", 1)
    assert reason in refused(capsys, tmp_path, *demo, *options)


def test_a_prior_that_is_no_diffusion_model_is_refused(
    tmp_path: Path, latent_prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "x.png"
    error = refused(capsys, tmp_path, "demo", "--prior", latent_prior, "-o", picture)
    assert "needs a diffusion model" in error
