"""`diffsplit demo`: its figure and table hold what belongs to each task, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run, with_reasons
from PIL import Image

from diffsplit.io.images import load_image
from diffsplit.priors import EDMPrior, load_prior
from diffsplit.priors.edm import build_unet


def test_the_demo_draws_six_rows_and_prints_a_table(
    tmp_path: Path,
    prior: str,
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    options = ("--prior", prior, "--image", cat, "--image", cat, "--samples", 2)
    for _ in range(2):  # its own default output needs no --force
        assert run("demo", *options) == 0
    out = capsys.readouterr().out
    assert "2 photographs of 16×16 pixels, 48 bits each, σ = 0.5" in out
    assert "DiffOneBit" in out
    assert "DiffEP" in out
    figure = load_image(folder / "diffsplit-demo.png")
    assert figure.shape[-2] == 6 * (128 + 4) - 4
    assert run("demo", *options, "--task", "logistic") == 0
    figures = sorted(path.name for path in folder.iterdir())
    assert figures == ["diffsplit-demo-logistic.png", "diffsplit-demo.png"]


@pytest.mark.parametrize("task", ["logistic", "onebit-inpainting", "quantized"])
def test_the_demo_shows_every_task_of_few_bits(
    tmp_path: Path, prior: str, cat: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    options = ("--prior", prior, "--image", cat, "--samples", 2, "-o", tmp_path / "x.png")
    rows = () if task == "onebit-inpainting" else ("--rows", 40)
    assert run("demo", "--task", task, *rows, *options) == 0
    out = capsys.readouterr().out
    title = {
        "logistic": "40 bits each, logistic",
        "onebit-inpainting": "384 bits each, σ = 0.5",
        "quantized": "40 measurements of 4 bits each, σ = 0.5",
    }
    assert f"1 photograph of 16×16 pixels, {title[task]}" in out
    assert "sign consistency" in out
    assert load_image(tmp_path / "x.png").shape[-1] >= 6 * (128 + 6) - 6


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
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    baseline: str,
) -> None:
    monkeypatch.setattr("diffsplit.cli.gallery.bundled_priors", lambda: ["cats-64"])
    options = ("--prior", prior, "--image", cat, "--samples", 2, "-o", tmp_path / "x.png")
    assert run("demo", "--task", task, *options) == 0
    out = capsys.readouterr().out
    methods = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    versions = ["DCDP (V1)", "DCDP (V2)"]
    assert methods == [baseline, *versions, "DiffEP, mean", "DiffEP, 2 samples"]
    assert "left out, since no bundled prior fits: DCDP (CM), DCDP, latent" in out
    assert "sign consistency" not in out
    # In a row: truth, measurement, baseline, two of DCDP, DiffEP's mean, sample and deviation.
    height, width = load_image(tmp_path / "x.png").shape[-2:]
    assert height == 128 + 22
    assert width >= 8 * (128 + 6) - 6


def test_the_demo_takes_in_the_bundled_priors_that_fit_its_images(
    tmp_path: Path,
    prior: str,
    consistency_prior: str,
    latent_prior: str,
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {"cats-64-consistency": consistency_prior, "cats-64-latent": latent_prior}
    monkeypatch.setattr("diffsplit.cli.gallery.bundled_priors", lambda: list(folders))
    monkeypatch.setattr(
        "diffsplit.cli.gallery.load_prior", lambda name, **_: load_prior(folders.get(name, name))
    )
    options = ("--image", cat, "--samples", 2, "--force", "-o", tmp_path / "x.png")
    assert run("demo", "--task", "denoise", "--prior", prior, *options) == 0
    out = capsys.readouterr().out
    assert "DCDP (CM)" in out
    assert "DCDP, latent" in out
    assert "left out" not in out
    assert load_image(tmp_path / "x.png").shape[-1] >= 10 * (128 + 6) - 6
    small = tmp_path / "small"
    EDMPrior(build_unet(8, 2, (16, 32)).eval(), sigma_data=0.5).save(small)
    assert run("demo", "--task", "denoise", "--prior", small, *options) == 0
    assert "left out" in capsys.readouterr().out


def test_the_demo_of_cats_needs_no_photograph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cats"
    EDMPrior(build_unet(64, 8, (16, 32)).eval(), sigma_data=0.5, patch=8).save(folder)
    options = ("--prior", folder, "--images", 1, "--samples", 2, "-o", tmp_path / "x.png")
    assert run("demo", *options) == 0
    assert "1 cat of 64×64 pixels, 768 bits each, σ = 0.5" in capsys.readouterr().out


def test_the_demo_of_a_face_needs_no_photograph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "faces"
    EDMPrior(build_unet(256, 32, (16, 32)).eval(), sigma_data=0.5, patch=32).save(folder)
    assert run("demo", "--prior", folder, "--samples", 2, "-o", tmp_path / "x.png") == 0
    assert "1 face of 256×256 pixels, 12,288 bits each" in capsys.readouterr().out


def test_a_prior_of_another_size_than_the_cats_asks_for_a_photograph(
    tmp_path: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, tmp_path, "demo", "--prior", prior, "-o", tmp_path / "x.png")
    assert "--image" in error
    assert "3×16×16" in error


def test_a_photograph_is_turned_upright_and_cropped_around_its_middle(tmp_path: Path) -> None:
    """A camera's landscape of which EXIF says that it is a portrait, for priors of two sizes."""
    values = np.zeros((40, 60, 3), dtype=np.uint8)
    values[:, :10] = 255  # what EXIF turns to the top, and the crop to a square cuts away
    values[:20, 25:35] = 128
    camera = Image.Exif()
    camera[0x0112] = 6  # to be turned clockwise by a quarter
    photograph = tmp_path / "me.gif.png"
    Image.fromarray(values).save(photograph, exif=camera)
    square = load_image(photograph, 16)
    assert square.shape == (1, 3, 16, 16)
    assert square[..., 2:, :6].max() < -0.9  # the white end is outside of the square
    assert square[0, 0, 8, 14] == pytest.approx(0.0, abs=0.05)  # the gray is on the right now
    tall = load_image(photograph, (24, 16))
    assert tall.shape == (1, 3, 24, 16)  # the whole of 60×40
    assert tall[..., :2, :].min() > 0.9
    assert load_image(photograph, (16, 32), channels=1).shape == (1, 1, 16, 32)


@with_reasons(
    (("--task", "denoise", "--rows", 3), "has no rows"),
    (("--task", "inpaint-box", "--operator", "dct"), "has no operator"),
    (("--task", "logistic", "--sigma", 0.5), "has no sigma"),
    (("--sigma", 0), "sigma > 0"),
    (("--sigma", "nan"), "sigma"),
    (("--prior", "nobody"), "no such prior"),
    (("--images", 1), "leave it out beside --image"),
    (("--image", "nowhere.jpg"), "no such image file"),
)
def test_the_demo_refuses_options_that_do_not_belong_to_its_task(
    tmp_path: Path,
    prior: str,
    cat: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    demo = ("demo", "--prior", prior, "-o", tmp_path / "x.png", "--image", cat)
    assert reason in refused(capsys, tmp_path, *demo, *options)


def test_a_prior_that_is_no_diffusion_model_is_refused(
    tmp_path: Path, latent_prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "x.png"
    error = refused(capsys, tmp_path, "demo", "--prior", latent_prior, "-o", picture)
    assert "needs a diffusion model" in error
