"""Training of residual denoisers and of Gaussians: from Python and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import run
from tiny_training import LICENSE, TINY, accelerator

from diffsplit import load_prior
from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, load_images
from diffsplit.priors import EDMPrior, GaussianSpectrum, ResidualPrior
from diffsplit.training import pictures as module
from diffsplit.training import started_config, train
from diffsplit.training.denoiser import DenoiserRun
from diffsplit.training.latent import train_latent

pytest.importorskip("accelerate")
pytestmark = pytest.mark.usefixtures("few_sampling_steps")
RESIDUAL = replace(TINY, form="residual", images=8)


@pytest.fixture(scope="module")
def residual(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("residual") / "prior"
    config = replace(RESIDUAL, checkpoint_minutes=60.0)
    train(pictures, out, config, cpu=True, facts={"license": LICENSE})
    return out


def test_a_run_starts_at_the_error_of_the_gaussian_of_its_images(pictures: Path) -> None:
    images = load_images(pictures, 16)
    run = DenoiserRun(RESIDUAL, images[:-1], images[-1:], accelerator())
    assert isinstance(run.prior, ResidualPrior)
    fitted = GaussianSpectrum.fit(from_uint8(images[:-1]))
    assert torch.equal(run.prior.gaussian.variances, fitted.variances)
    x = 0.5 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(run.prior.denoise(x, 0.5), fitted.denoise(x, 0.5))
        # The loss is the Gaussian's error over its prediction: about 1 on images that follow it.
        torch.testing.assert_close(
            run.prior.output_scale(torch.tensor([0.5])).square(), fitted.error(torch.tensor([0.5]))
        )


def test_the_folder_of_a_trained_residual_prior_holds_it_and_its_card(residual: Path) -> None:
    prior = load_prior(residual)
    assert isinstance(prior, ResidualPrior)
    assert prior.error(1.0) is not None
    assert prior.facts["license"] == LICENSE
    card = (residual / "README.md").read_text("utf-8")
    assert "the best linear denoiser" in card
    assert "- form: residual" in card
    assert (residual / "samples.png").stat().st_size > 0


def test_a_few_steps_lower_the_error_below_the_gaussians() -> None:
    """On images of black and white squares, which no linear denoiser can know."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 2, (64, 1, 4, 4), generator=generator).expand(-1, 3, -1, -1)
    squares = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = (25 + 205 * squares).to(torch.uint8)
    config = replace(RESIDUAL, images=1000, lr=1e-2, batch=16, log_sigma_std=0.3)
    run = DenoiserRun(config, images, images, accelerator())
    assert isinstance(run.prior, ResidualPrior)
    x = from_uint8(images)
    noisy = x + 0.7 * torch.randn(x.shape, generator=generator)
    linear = (run.prior.gaussian.denoise(noisy, 0.7) - x).square().mean()
    for _ in range(40):
        run.update()
    with torch.no_grad():
        error = (run.prior.denoise(noisy, 0.7) - x).square().mean()
    assert error < 0.8 * linear


def test_a_resumed_run_ends_with_the_same_weights_also_on_compressed_images(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(RESIDUAL, images=12, attention=1, augment=0.5)
    whole = train(pictures, tmp_path / "whole", config, cpu=True)
    monkeypatch.setattr(module, "DECODED_BYTES", 100)
    original = DenoiserRun.update

    def interrupted(run: DenoiserRun) -> torch.Tensor:
        if run.step == 2:
            raise KeyboardInterrupt
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(DenoiserRun, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, tmp_path / "cut", config, cpu=True)
    resumed = train(pictures, tmp_path / "cut", config, cpu=True, resume=True)
    assert isinstance(whole, ResidualPrior)
    assert isinstance(resumed, ResidualPrior)
    assert torch.equal(whole.gaussian.variances, resumed.gaussian.variances)
    for a, b in zip(whole.unet.parameters(), resumed.unet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_goes_on_from_a_residual_prior_and_may_get_more_attention(
    residual: Path, pictures: Path, tmp_path: Path
) -> None:
    config = replace(TINY, images=4, lr=1e-9, attention=1, checkpoint_minutes=60.0)
    prior = train(pictures, tmp_path / "prior", config, cpu=True, init=residual)
    start = load_prior(residual)
    assert isinstance(prior, ResidualPrior)
    assert isinstance(start, ResidualPrior)
    assert torch.equal(prior.gaussian.variances, start.gaussian.variances)
    assert prior.facts["recipe"]["attention"] == 1
    assert "AttnDownBlock2D" in prior.unet.config.down_block_types
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(prior.denoise(x, 0.5), start.denoise(x, 0.5), rtol=0, atol=1e-3)


def test_a_gaussian_is_fitted_without_steps(pictures: Path, tmp_path: Path) -> None:
    config = replace(TINY, form="gaussian", sigma_max=100.0)
    prior = train(pictures, tmp_path / "prior", config, cpu=True, facts={"license": LICENSE})
    assert isinstance(prior, GaussianSpectrum)
    expected = GaussianSpectrum.fit(from_uint8(load_images(pictures, 16)[:-1]))
    torch.testing.assert_close(prior.variances, expected.variances, rtol=1e-2, atol=1e-12)
    assert (prior.sigma_max, prior.facts["training_images"]) == (100.0, 11)
    assert "no network" in (tmp_path / "prior" / "README.md").read_text("utf-8")
    with pytest.raises(InputError, match="not empty"):
        train(pictures, tmp_path / "prior", config, cpu=True)


def test_the_command_trains_a_residual_prior_and_goes_on_from_there(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prior"
    command = ("train", pictures, "--out", out, "--cpu")
    network = ("--form", "residual", "--patch", 2, "--channels", "16,32", "--attention", 1)
    learning = ("--log-sigma-mean", 0.1, "--log-sigma-std", 0.9, "--augment", 0.3)
    assert run(*command, *network, *learning, "--size", 16, "--images", 4, "--batch", 4) == 0
    assert isinstance(load_prior(out), ResidualPrior)
    config = started_config(out)
    assert (config.form, config.attention, config.augment) == ("residual", 1, 0.3)
    assert (config.log_sigma_mean, config.log_sigma_std) == (0.1, 0.9)
    assert run(*command, "--resume", "--images", 8, "--form", "edm") == 2
    assert "form is edm, but the run was started with residual" in capsys.readouterr().err
    assert run(*command, "--resume", "--images", 8, "--augment", 0) == 0
    assert load_prior(out).describe()["images_seen"] == 8
    plain = tmp_path / "edm"
    tiny = ("--size", 16, "--images", 4, "--batch", 4, "--channels", "16,32")
    assert run("train", pictures, "--out", plain, "--cpu", *tiny) == 0
    assert isinstance(load_prior(plain), EDMPrior)


def test_the_command_fits_a_gaussian(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "prior"
    train_ = ("train", pictures, "--out", out, "--cpu", "--size", 16, "--batch", 4)
    assert run(*train_, "--form", "gaussian") == 0
    assert isinstance(load_prior(out), GaussianSpectrum)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"form": "best"}, "one of edm, residual, gaussian"),
        ({"form": 3}, "a word"),
        ({"attention": 9}, "levels"),
        ({"attention": 2}, "32 channels"),
        ({"augment": 1.5}, "from 0 to 1"),
    ],
)
def test_an_option_out_of_range_is_refused(option: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(TINY, **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"form": "residual"}, {"augment": 0.5}])
def test_latents_are_of_the_edm_form(option: dict[str, object], tmp_path: Path) -> None:
    from tiny_training import CODER, DENOISER

    with pytest.raises(InputError, match="latents"):
        train_latent(tmp_path / "none", tmp_path / "out", CODER, replace(DENOISER, **option))  # type: ignore[arg-type]
