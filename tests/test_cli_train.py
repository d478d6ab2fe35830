"""`diffsplit train`, `train --latent` and `distill`: a prior, and how to go on from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import refused, run, with_reasons

from diffsplit.priors import load_prior
from diffsplit.training import TrainConfig, started_config

pytest.importorskip("accelerate")


@with_reasons(
    ((), "none"),
    (("--channels", "64,wide"), "--channels 64,wide"),
    (("--channels", "8"), "multiples of 16"),
    (("--sigma-min", 5, "--sigma-max", 1), "sigma_min"),
    (("--latent", "--init", "cats-64"), "is a diffusion model"),
    (("--autoencoder-images", 4), "--latent"),
)
def test_training_refuses_what_cannot_be_trained(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    reason: str,
) -> None:
    train = ("train", tmp_path / "none", "--out", tmp_path / "out")
    assert reason in refused(capsys, tmp_path, *train, *options)


@pytest.mark.usefixtures("few_sampling_steps")
def test_the_command_trains_a_prior_and_goes_on_from_there(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prior"
    train = ("train", pictures, "--out", out, "--cpu")
    network = ("--channels", "16,32", "--patch", 4, "--sigma-min", 0.02, "--sigma-max", 50)
    options = ("--size", 16, "--images", 8, "--batch", 4, "--name", "Blobs")
    assert run(*train, *network, *options) == 0
    made = load_prior(out)
    assert (made.shape, made.sigma_min, made.sigma_max) == ((3, 16, 16), 0.02, 50.0)
    assert run(*train, "--images", 16) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*train, "--images", 16, "--resume", "--size", 32) == 2
    assert "size is 32, but the run was started with 16" in capsys.readouterr().err
    assert run(*train, "--images", 16, "--resume") == 0
    assert load_prior(out).describe()["images_seen"] == 16
    assert started_config(out) == TrainConfig(
        size=16, images=16, batch=4, channels=(16, 32), patch=4, sigma_min=0.02, sigma_max=50.0
    )
    card = (out / "README.md").read_text("utf-8")
    assert "# Blobs" in card
    assert "- after 8 images: images 8 → 16" in card


@pytest.mark.usefixtures("few_sampling_steps")
def test_the_command_trains_a_latent_prior(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("train", pictures, "--out", tmp_path / "prior", "--cpu")
    options = ("--size", 16, "--batch", 4, "--images", 4, "--channels", "16,32")
    assert run(*train, "--latent", *options, "--autoencoder-images", 4) == 0
    assert "--solver dcdp-latent" in capsys.readouterr().out
    assert load_prior(tmp_path / "prior").shape == (3, 16, 16)


@pytest.mark.usefixtures("short_comparisons")
def test_the_command_distills_and_goes_on_from_there(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fast"
    distill = ("distill", trained, "--out", out, "--cpu")
    assert run(*distill, "--images", 4, "--batch", 4) == 0
    assert "--purifier consistency" in capsys.readouterr().out
    assert run(*distill, "--images", 8) == 2
    assert run(*distill, "--images", 8, "--resume") == 0
    assert load_prior(out).describe()["images_seen"] == 8
