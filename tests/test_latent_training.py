"""Training in latents: an autoencoder, then a denoiser of what it encodes."""

import shutil
from dataclasses import replace

import pytest
import torch
from folders import contents
from tiny_training import CODER, DENOISER, accelerator

import diffsplit as ds
from diffsplit import load_prior
from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, load_images
from diffsplit.priors import LatentPrior
from diffsplit.training.autoencoder import AutoencoderRun
from diffsplit.training.latent import train_latent

pytest.importorskip("accelerate")


def test_a_trained_latent_folder_holds_a_prior_that_a_solver_takes(trained_latents):
    prior = load_prior(trained_latents)
    assert isinstance(prior, LatentPrior)
    assert prior.shape == (3, 16, 16)
    assert prior.latent.shape == (2, 8, 8)
    assert prior.latent.error(1.0) is not None
    problem = ds.Problem(
        ds.operators.Downsample(prior.shape, factor=2), ds.channels.GaussianNoise(0.05)
    )
    truth = torch.zeros(1, 3, 16, 16)
    y = problem.measure(truth, generator=torch.Generator().manual_seed(0))
    result = ds.solvers.LatentDCDP(rounds=2, tau=3, step_size=0.1)(problem, y, prior)
    assert result.image.shape == (1, 3, 16, 16)


def test_latents_are_centered_and_of_unit_variance(trained_latents, pictures):
    prior = load_prior(trained_latents)
    images = from_uint8(load_images(pictures, 16))[:11]
    z = torch.cat([prior.encode(images), prior.encode(images.flip(3))])
    assert abs(z.mean().item()) < 0.02
    assert z.std().item() == pytest.approx(1, abs=0.02)


def test_the_card_and_the_pictures_of_both_runs_are_there(trained_latents):
    card = (trained_latents / "README.md").read_text("utf-8")
    assert "KL autoencoder" in card
    assert "dB PSNR when encoded and decoded" in card
    assert "- latent_channels: 2" in card
    for name in (
        "samples.png",
        *(f"training/{run}/loss.png" for run in ("autoencoder", "denoiser")),
    ):
        assert (trained_latents / name).stat().st_size > 0


def test_a_few_steps_improve_an_autoencoder(pictures):
    images = load_images(pictures, 16)
    run = AutoencoderRun(replace(CODER, images=400, lr=3e-3), images, images[:4], accelerator())
    (before,) = run.errors()
    for _ in range(60):
        run.update()
    (after,) = run.errors()
    assert after < 0.6 * before


def test_resuming_a_finished_run_changes_nothing(trained_latents, pictures, tmp_path):
    out = shutil.copytree(trained_latents, tmp_path / "prior")
    again = train_latent(pictures, out, CODER, DENOISER, cpu=True, resume=True)
    assert again.latent.curve == load_prior(trained_latents).latent.curve


def test_an_autoencoder_whose_latents_were_learned_is_not_trained_on(
    trained_latents, pictures, tmp_path
):
    out = shutil.copytree(trained_latents, tmp_path / "prior")
    before = contents(out)
    with pytest.raises(InputError, match="leave out --autoencoder-images"):
        train_latent(pictures, out, replace(CODER, images=16), DENOISER, cpu=True, resume=True)
    assert contents(out) == before


def test_a_size_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    coder = replace(CODER, size=18, channels=(16, 16, 16))
    with pytest.raises(InputError, match="size 18 is not divisible by 8"):
        train_latent(tmp_path / "none", tmp_path / "x", coder, DENOISER, cpu=True)
