"""Training in latents: an autoencoder, then a denoiser of what it encodes."""

import shutil
from dataclasses import replace

import pytest
import torch
from test_training import TINY, accelerator, contents, zip_of_pictures

import diffsplit as ds
from diffsplit import load_prior
from diffsplit.cli import main
from diffsplit.errors import InputError
from diffsplit.images import from_uint8, load_images
from diffsplit.priors import LatentPrior
from diffsplit.training.autoencoder import AutoencoderConfig, AutoencoderRun
from diffsplit.training.latent import started_latent_config, train_latent
from diffsplit.training.run import Run

pytest.importorskip("accelerate")

CODER = AutoencoderConfig(
    size=16, batch=4, images=8, channels=(16, 32), latent_channels=2, checkpoint_minutes=0.0
)
DENOISER = replace(TINY, images=8, patch=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return zip_of_pictures(tmp_path_factory.mktemp("data") / "pictures.zip")


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("latent") / "prior"
    train_latent(pictures, out, CODER, DENOISER, cpu=True, facts={"license": "mine"})
    return out


def test_a_trained_latent_folder_holds_a_prior_that_a_solver_takes(finished):
    prior = load_prior(finished)
    assert isinstance(prior, LatentPrior)
    assert prior.shape == (3, 16, 16)
    assert prior.latent_shape == (2, 8, 8)
    assert prior.latent.error(1.0) is not None
    problem = ds.Problem(
        ds.operators.Downsample(prior.shape, factor=2), ds.channels.GaussianNoise(0.05)
    )
    truth = torch.zeros(1, 3, 16, 16)
    y = problem.measure(truth, generator=torch.Generator().manual_seed(0))
    result = ds.solvers.LatentDCDP(rounds=2, tau=3, step_size=0.1)(problem, y, prior)
    assert result.image.shape == (1, 3, 16, 16)


def test_latents_are_centered_and_of_unit_variance(finished, pictures):
    prior = load_prior(finished)
    images = from_uint8(load_images(pictures, 16))[:11]
    z = torch.cat([prior.encode(images), prior.encode(images.flip(3))])
    assert abs(z.mean().item()) < 0.02
    assert z.std().item() == pytest.approx(1, abs=0.02)


def test_the_card_and_the_pictures_of_both_runs_are_there(finished):
    card = (finished / "README.md").read_text("utf-8")
    assert "KL autoencoder" in card
    assert "dB PSNR when encoded and decoded" in card
    assert "- latent_channels: 2" in card
    for name in (
        "samples.png",
        *(f"training/{run}/loss.png" for run in ("autoencoder", "denoiser")),
    ):
        assert (finished / name).stat().st_size > 0


def test_a_few_steps_improve_an_autoencoder(pictures):
    images = load_images(pictures, 16)
    run = AutoencoderRun(replace(CODER, images=400, lr=3e-3), images, images[:4], accelerator())
    (before,) = run.errors()
    for _ in range(60):
        run.update()
    (after,) = run.errors()
    assert after < 0.6 * before


@pytest.mark.parametrize("stop", ["autoencoder", "denoiser"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    stop, finished, pictures, tmp_path, monkeypatch
):
    out = tmp_path / "cut"

    class InterruptedRunError(Exception):
        pass

    def interrupt(run):
        if run.step == 1 and isinstance(run, AutoencoderRun) == (stop == "autoencoder"):
            raise InterruptedRunError
        return original(run)

    original = Run.update
    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", interrupt)
        with pytest.raises(InterruptedRunError):
            train_latent(pictures, out, CODER, DENOISER, cpu=True, facts={"license": "mine"})
    first, second = started_latent_config(out)
    assert first == CODER
    resumed = train_latent(pictures, out, first, second, cpu=True, resume=True)
    assert resumed.facts["license"] == "mine"
    whole = load_prior(finished)
    for a, b in (
        (whole.autoencoder, resumed.autoencoder),
        (whole.latent.unet, resumed.latent.unet),
    ):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_command_trains_a_latent_prior(pictures, tmp_path, capsys):
    command = ["train", str(pictures), "--out", str(tmp_path / "prior"), "--latent", "--cpu"]
    options = ["--size", "16", "--batch", "4", "--images", "4", "--autoencoder-images", "4"]
    assert main([*command, *options]) == 0
    assert "--solver dcdp-latent" in capsys.readouterr().out
    assert load_prior(tmp_path / "prior").shape == (3, 16, 16)
    assert main([*command[:-2], "--autoencoder-images", "4"]) == 2
    assert main([*command, "--init", "cats-64"]) == 2


def test_resuming_a_finished_run_changes_nothing(finished, pictures, tmp_path):
    out = shutil.copytree(finished, tmp_path / "prior")
    again = train_latent(pictures, out, CODER, DENOISER, cpu=True, resume=True)
    assert again.latent.curve == load_prior(finished).latent.curve


def test_an_autoencoder_whose_latents_were_learned_is_not_trained_on(finished, pictures, tmp_path):
    out = shutil.copytree(finished, tmp_path / "prior")
    before = contents(out)
    with pytest.raises(InputError, match="leave out --autoencoder-images"):
        train_latent(pictures, out, replace(CODER, images=16), DENOISER, cpu=True, resume=True)
    assert contents(out) == before


def test_a_size_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path):
    coder = replace(CODER, size=18, channels=(16, 16, 16))
    with pytest.raises(InputError, match="size 18 is not divisible by 8"):
        train_latent(tmp_path / "none", tmp_path / "x", coder, DENOISER, cpu=True)
