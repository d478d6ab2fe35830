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
from diffsplit.metrics import psnr
from diffsplit.priors import LatentPrior, ResidualPrior
from diffsplit.training.autoencoder import AutoencoderConfig, AutoencoderRun
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


def test_an_autoencoder_that_starts_from_another_codes_images_as_that_one_does(
    trained_latents, pictures
):
    images = load_images(pictures, 16)
    start = load_prior(trained_latents).autoencoder
    run = AutoencoderRun(CODER, images, images, accelerator(), start)
    x = from_uint8(images)
    expected = start.decode(start.encode(x).latent_dist.mode(), return_dict=False)[0]
    torch.testing.assert_close(run.reconstruct(images), expected.clamp(-1, 1), atol=1e-4, rtol=0)
    z = run.model.encode(x).latent_dist.mode().transpose(0, 1).flatten(1)
    covariance = torch.cov(z)
    assert covariance[0, 0] > covariance[1, 1]
    assert covariance[0, 1].abs() < 1e-3 * covariance[0, 0]


def test_fewer_latents_than_those_of_the_start_keep_nearly_all(pictures, trained_latents):
    images = load_images(pictures, 64)
    prior = load_prior("cats-64-latent")
    whole = psnr(prior.decode(prior.encode(from_uint8(images))), from_uint8(images)).mean()
    config = AutoencoderConfig(batch=4, latent_channels=3)
    run = AutoencoderRun(config, images, images, accelerator(), prior.autoencoder)
    assert psnr(run.reconstruct(images), from_uint8(images)).mean() > whole - 2
    start = load_prior(trained_latents).autoencoder
    with pytest.raises(InputError, match="2 latent channels"):
        AutoencoderRun(replace(CODER, latent_channels=3), images, images, accelerator(), start)


def test_a_denoiser_of_latents_may_correct_a_linear_one(pictures, trained_latents, tmp_path):
    residual = replace(DENOISER, form="residual")
    prior = train_latent(
        pictures, tmp_path / "prior", CODER, residual, init=trained_latents, cpu=True
    )
    assert isinstance(prior.latent, ResidualPrior)
    again = load_prior(tmp_path / "prior")
    z = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.latent.denoise(z, 1.0), prior.latent.denoise(z, 1.0))
    assert prior.facts["autoencoder_started_from"] == trained_latents.name
    # It starts at the error of the linear denoiser, which is below that of no denoiser at all.
    assert prior.latent.error(1.0) < 1.2 * float(prior.latent.gaussian.error(torch.tensor(1.0)))


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
