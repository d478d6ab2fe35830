"""Measuring the error of a prior, keeping it, and finding it again by the weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import SIZE, refused, run
from folders import contents
from tiny_networks import tiny_edm, tiny_unet, tiny_vq
from torch import Tensor, nn

import diffsplit as ds
from diffsplit.calibration import calibrate_prior
from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    Denoiser,
    DiffusersPrior,
    ErrorCurve,
    GaussianPrior,
    error_facts,
    from_callable,
    load_prior,
    measure_error,
    stored_curve,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of measured errors, empty."""
    monkeypatch.setenv("DIFFSPLIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "curves"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published model without a measured error."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(tiny_unet(3, SIZE), DDPMScheduler()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=_generator()) * 2 - 1


def test_the_error_on_images_is_measured_stored_and_found_by_the_next_load(
    folder: Path, home: Path
) -> None:
    prior, images = load_prior(folder), _images(4, 3, SIZE, SIZE)
    assert isinstance(prior, Denoiser)
    assert prior.error(0.5) is None
    curve = calibrate_prior(prior, images, generator=_generator())
    assert curve == measure_error(prior, images, curve.sigma, _generator(), batch=16)
    assert (curve.sigma[0], curve.sigma[-1]) == pytest.approx((prior.sigma_min, prior.sigma_max))
    assert prior.curve == curve
    (file,) = home.iterdir()
    assert json.loads(file.read_text())["measured_on"] == "images"
    again = load_prior(folder)
    assert isinstance(again, Denoiser)
    assert again.curve == curve
    assert load_prior(folder, dtype=torch.bfloat16, channels_last=True).curve == curve


class Wiener(nn.Module):
    """The denoiser of N(0, c I)."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * (self.c / (self.c + sigma.square())).view(-1, 1, 1, 1)


def test_on_its_own_samples_an_exact_model_has_the_error_of_its_distribution() -> None:
    """v(σ) = c σ²/(c + σ²) for N(0, c); on other images, of zeros, the error is another one."""
    c = 0.04
    prior = from_callable(Wiener(c), (3, 16, 16), sigma_min=0.02, sigma_max=50.0)
    curve = calibrate_prior(prior, generator=_generator())
    for sigma in (0.05, 0.2, 1.0, 20.0):
        exact = c * sigma**2 / (c + sigma**2)
        assert curve(sigma).item() == pytest.approx(exact, rel=0.1)
    zeros = calibrate_prior(prior, torch.zeros(8, 3, 16, 16), generator=_generator())
    assert zeros(0.2).item() == pytest.approx((c * 0.2 / (c + 0.2**2)) ** 2, rel=0.1)


def test_other_weights_classes_schedules_and_settings_have_no_error_of_this_one(
    folder: Path, tmp_path: Path
) -> None:
    from diffusers import DDPMScheduler

    calibrate_prior(load_prior(folder), _images(2, 3, SIZE, SIZE), generator=_generator())
    unet = tiny_unet(3, SIZE)
    assert load_prior((unet, DDPMScheduler())).curve is not None
    others = [
        (unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        (unet, DDPMScheduler(beta_end=0.0201)),
        (unet, DDPMScheduler(prediction_type="sample")),
    ]
    assert all(load_prior(other).curve is None for other in others)
    alphas = DDPMScheduler().alphas_cumprod
    assert stored_curve(DiffusersPrior(unet, alphas)) is not None
    alphas[500] = (alphas[499] + alphas[501]) / 2 + 1e-5
    assert stored_curve(DiffusersPrior(unet, alphas)) is None
    nn.init.ones_(unet.conv_out.bias)
    assert load_prior((unet, DDPMScheduler())).curve is None
    pair = tiny_unet(3, SIZE, num_class_embeds=3), DDPMScheduler()
    first = load_prior(pair, class_label=1)
    calibrate_prior(first, _images(2, 3, SIZE, SIZE), generator=_generator())
    assert load_prior(pair, class_label=1).curve == first.curve
    assert load_prior(pair, class_label=2).curve is None


def test_each_size_of_a_prior_has_an_error_of_its_own(folder: Path) -> None:
    prior = load_prior(folder)
    calibrate_prior(prior, _images(2, 3, SIZE, SIZE), generator=_generator())
    wide = prior.at((3, SIZE, 2 * SIZE))
    assert wide.curve is None
    curve = calibrate_prior(wide, _images(2, 3, SIZE, 2 * SIZE), generator=_generator())
    assert load_prior(folder).at((3, SIZE, 2 * SIZE)).curve == curve
    assert load_prior(folder).curve == prior.curve != curve


def test_of_a_latent_model_the_error_is_that_of_its_latents(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, LDMPipeline

    LDMPipeline(tiny_vq(0.3), tiny_unet(3, 8), DDIMScheduler()).save_pretrained(tmp_path / "m")
    prior, images = load_prior(tmp_path / "m"), _images(3, 3, 16, 16)
    assert isinstance(prior, ds.LatentModel)
    curve = calibrate_prior(prior, images, generator=_generator())
    z = prior.encode(images)
    assert curve == measure_error(prior.latent, z, curve.sigma, _generator(), batch=16)
    again = load_prior(tmp_path / "m")
    assert isinstance(again, ds.LatentModel)
    assert again.latent.curve == curve


def test_with_its_error_message_passing_spends_one_evaluation_a_step(folder: Path) -> None:
    prior = load_prior(folder)
    operator = ds.operators.RandomizedTransform((3, SIZE, SIZE), 200, 0)
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    y = problem.measure(_images(1, 3, SIZE, SIZE), generator=_generator())
    solver = ds.solvers.DiffEP(iterations=3)
    without = solver(problem, y, prior, generator=_generator())
    curve = calibrate_prior(prior, _images(4, 3, SIZE, SIZE), generator=_generator())
    assert math.isfinite(curve(1.0).item())
    with_curve = solver(problem, y, prior, generator=_generator())
    assert with_curve.nfe < without.nfe


def test_a_benchmark_knows_a_prior_with_its_error_from_one_without(folder: Path) -> None:
    from diffsplit.bench import fingerprint

    bundled, before = fingerprint.hash_of_prior("cats-64"), fingerprint.hash_of_prior(str(folder))
    prior, images = load_prior(folder), _images(2, 3, SIZE, SIZE)
    calibrate_prior(prior, images, generator=_generator())
    assert fingerprint.hash_of_prior(str(folder)) != before
    assert fingerprint.hash_of_prior("cats-64") == bundled


def test_what_is_known_of_an_error_is_told(folder: Path) -> None:
    prior = load_prior(folder)
    assert isinstance(prior, Denoiser)
    assert error_facts(prior).startswith("not measured")
    calibrate_prior(prior, _images(2, 3, SIZE, SIZE), generator=_generator())
    assert error_facts(prior).startswith("measured on 2 images")
    prior.curve = ErrorCurve((0.01, 100.0), (1e-4, 0.25))
    assert error_facts(prior) == error_facts(tiny_edm()) == error_facts(GaussianPrior((4,)))
    assert error_facts(prior) == "known"


def test_a_measurement_that_fails_leaves_the_earlier_one(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = load_prior(folder)
    calibrate_prior(prior, _images(2, 3, SIZE, SIZE), generator=_generator())
    before = contents(home)

    def broken(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("diffsplit.io.files.os.replace", broken)
    with pytest.raises(OSError, match="full"):
        calibrate_prior(prior, _images(3, 3, SIZE, SIZE), generator=_generator())
    assert contents(home) == before


def test_a_damaged_file_is_named_with_what_to_do(folder: Path, home: Path) -> None:
    calibrate_prior(load_prior(folder), _images(2, 3, SIZE, SIZE), generator=_generator())
    (file,) = home.iterdir()
    for text in ("{", "{}", '{"sigma": [1, 2], "mse": ["a", 1]}'):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"{file.name}.*delete it.*diffsplit calibrate"):
            load_prior(folder)


def test_weights_are_not_hashed_where_nothing_was_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate_prior(load_prior(folder), _images(2, 3, SIZE, SIZE), generator=_generator())

    def never(*_: Any) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr("diffsplit.priors.curve_store._content", never)
    from diffusers import DDPMScheduler

    assert load_prior((tiny_unet(1, SIZE), DDPMScheduler())).curve is None


def test_what_has_no_error_to_measure_is_refused(tmp_path: Path) -> None:
    for prior, words in (
        (ConsistencyPrior(tiny_unet(3, 16)), "consistency model has no error"),
        (tiny_edm(), "comes with its error"),
        (GaussianPrior((4,)), "comes with its error"),
        (from_callable(lambda x, s: x, (3, 4, 4)), "no weights to be recognized by"),
    ):
        with pytest.raises(InputError, match=words):
            calibrate_prior(prior, generator=_generator())
    own = tiny_edm()
    assert isinstance(own.curve, ErrorCurve)
    assert stored_curve(own) is None


def test_the_command_measures_on_pictures_or_samples_and_recover_finds_it(
    folder: Path,
    home: Path,
    pictures: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diffsplit.calibration.SAMPLES", 2)
    monkeypatch.setattr("diffsplit.calibration.STEPS", 2)
    assert run("info", folder) == 0
    assert "not measured" in capsys.readouterr().out
    assert run("calibrate", folder, "--device", "cpu") == 0
    assert "measured on its own samples" in capsys.readouterr().out
    assert run("info", folder) == 0
    assert "measured on 2 samples of the model" in capsys.readouterr().out
    (file,) = home.iterdir()
    assert json.loads(file.read_text())["measured_on"] == "samples of the model"
    assert run("calibrate", folder, "--images", pictures, "--count", 3, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert f"measured on {pictures}" in out.replace("\n", " ")
    assert str(home) in out
    assert [json.loads(f.read_text())["images"] for f in home.iterdir()] == [3]
    assert run("recover", measured, "-o", tmp_path / "x.png", "--prior", folder, "--steps", 2) == 0


def test_the_command_refuses_priors_and_pictures_that_do_not_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "consistency" in refused(capsys, tmp_path, "calibrate", "cats-64-consistency")
    assert "comes with its error" in refused(capsys, tmp_path, "calibrate", "cats-64")
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(tiny_unet(4, SIZE), DDPMScheduler()).save_pretrained(tmp_path / "four")
    error = refused(capsys, tmp_path, "calibrate", tmp_path / "four", "--images", tmp_path)
    assert "color or gray" in error
    error = refused(capsys, tmp_path, "calibrate", "cats-64", "--prompt", "a cat")
    assert "leave --prompt out" in error
