"""What a published network says, in σ-space: against one step of the library's own scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import tiny_unet
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    Denoiser,
    DiffusersPrior,
    FlowPrior,
    PreconditionedPrior,
    ScorePrior,
    load_prior,
)
from diffsplit.priors.assembled import scheduled


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _step(scheduler: Any, share: float) -> int:
    """The place of a timestep, counted from the last one, which is that of the least noise."""
    return round(share * (len(scheduler.timesteps) - 1))


def _preserving(unet: Any, scheduler: Any, x: Tensor, share: float) -> tuple[float, Tensor]:
    """The library's estimate of x0 from x0 + σ n, at one of its timesteps; σ and the estimate."""
    scheduler.set_timesteps(scheduler.config.num_train_timesteps)
    t = scheduler.timesteps[-1 - _step(scheduler, share)]
    alpha = scheduler.alphas_cumprod[t].sqrt()
    between = alpha * x
    output = unet(between, t).sample
    sigma = ((1 - alpha**2) / alpha**2).sqrt().item()
    return sigma, scheduler.step(output, t, between).pred_original_sample


def _in_sigma(unet: Any, scheduler: Any, x: Tensor, share: float) -> tuple[float, Tensor]:
    """The same for schedulers that work with σ themselves."""
    scheduler.set_timesteps(1000)
    step = _step(scheduler, share)
    t, sigma = scheduler.timesteps[-1 - step], scheduler.sigmas[-2 - step].item()
    output = unet(scheduler.scale_model_input(x, t), t).sample
    return sigma, scheduler.step(output, t, x).pred_original_sample


def _flow(unet: Any, scheduler: Any, x: Tensor, share: float) -> tuple[float, Tensor]:
    """A step along the straight line of a flow, prolonged to its end at t = 0."""
    scheduler.set_timesteps(20)
    place = len(scheduler.timesteps) - 1 - _step(scheduler, share)
    t, (now, after) = scheduler.timesteps[place], scheduler.sigmas[place : place + 2]
    between = (1 - now) * x
    moved = scheduler.step(unet(between, t).sample, t, between).prev_sample
    return (now / (1 - now)).item(), between + (moved - between) * now / (now - after)


def _exploding(unet: Any, scheduler: Any, x: Tensor, share: float) -> tuple[float, Tensor]:
    """The noise-free part of a step, prolonged from the variance that it removes to all of it."""
    count = scheduler.config.num_train_timesteps
    scheduler.set_timesteps(count)
    scheduler.set_sigmas(count)
    sigmas, step = scheduler.discrete_sigmas, _step(scheduler, share)
    now, after = sigmas[step], sigmas[step - 1] if step else torch.zeros(())
    u, place = (x + 1) / 2, step / (count - 1)
    score = unet(u, now.expand(len(x))).sample
    moved = scheduler.step_pred(score, place, u).prev_sample_mean
    clean = u + (moved - u) * now**2 / (now**2 - after**2)
    return 2 * now.item(), 2 * clean - 1


Plain = Callable[[Any, Any, Tensor, float], tuple[float, Tensor]]


def _cases() -> dict[str, tuple[dict[str, Any], Any, Plain, type[Denoiser]]]:
    import diffusers as d

    exact = {"clip_sample": False}
    scaled = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
    fourier = {"time_embedding_type": "fourier"}
    return {
        "epsilon, linear": ({}, d.DDPMScheduler(**exact), _preserving, DiffusersPrior),
        "velocity, scaled": (
            {},
            d.DDIMScheduler(**exact, **scaled, prediction_type="v_prediction"),
            _preserving,
            DiffusersPrior,
        ),
        "sample, cosine": (
            {},
            d.DDPMScheduler(**exact, prediction_type="sample", beta_schedule="squaredcos_cap_v2"),
            _preserving,
            DiffusersPrior,
        ),
        "velocity, no signal at the end": (
            {},
            d.DDIMScheduler(
                **exact,
                **scaled,
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                timestep_spacing="trailing",
            ),
            _preserving,
            DiffusersPrior,
        ),
        "epsilon, Euler": ({}, d.EulerDiscreteScheduler(**scaled), _in_sigma, DiffusersPrior),
        "EDM": ({}, d.EDMEulerScheduler(sigma_data=0.4), _in_sigma, PreconditionedPrior),
        "EDM, velocity": (
            {},
            d.EDMEulerScheduler(prediction_type="v_prediction"),
            _in_sigma,
            PreconditionedPrior,
        ),
        "flow": ({}, d.FlowMatchEulerDiscreteScheduler(shift=3.0), _flow, FlowPrior),
        "score": (fourier, d.ScoreSdeVeScheduler(50, sigma_max=348.0), _exploding, ScorePrior),
    }


NAMES = (
    "epsilon, linear",
    "velocity, scaled",
    "sample, cosine",
    "velocity, no signal at the end",
    "epsilon, Euler",
    "EDM",
    "EDM, velocity",
    "flow",
    "score",
)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_and_a_pair_answer_as_the_scheduler_of_the_library(
    name: str, channels: int, tmp_path: Path
) -> None:
    options, scheduler, plain, kind = _cases()[name]
    unet = tiny_unet(channels, 16, **options)
    unet.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    folder, pair = load_prior(tmp_path), load_prior((unet, scheduler))
    assert type(folder) is type(pair) is kind
    assert folder.shape == pair.shape == (channels, 16, 16)
    x = _noise(2, channels, 16, 16)
    for share in (0.0, 0.4, 0.9):
        with torch.no_grad():
            sigma, expected = plain(unet, scheduler, x, share)
        assert folder.sigma_min * 0.999 < sigma < folder.sigma_max * 1.001
        for prior in (folder, pair):
            assert isinstance(prior, Denoiser)
            answer = prior.denoise(x, sigma)
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)
        assert (expected - x).abs().max() > 1e-3


def test_a_score_network_of_the_karras_scheduler_is_the_same_denoiser(tmp_path: Path) -> None:
    """In the words of its pipeline: σ/2 times the network at (x + 1)/2 and σ/2 is added σ times."""
    unet = tiny_unet(3, 16, time_embedding_type="fourier")
    unet.save_pretrained(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    config = {"_class_name": "KarrasVeScheduler", "sigma_min": 0.03, "sigma_max": 90.0}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    prior, x, sigma = load_prior(tmp_path), _noise(2, 3, 16, 16), 1.7
    assert isinstance(prior, ScorePrior)
    assert (prior.sigma_min, prior.sigma_max) == (0.03, 90.0)
    output = sigma / 2 * unet((x + 1) / 2, torch.tensor(sigma / 2)).sample
    torch.testing.assert_close(prior.denoise(x, sigma), x + sigma * output, rtol=1e-4, atol=1e-4)


def test_the_levels_of_a_score_network_are_doubled_for_images_on_minus_one_to_one() -> None:
    from diffusers import ScoreSdeVeScheduler

    unet = tiny_unet(3, 16, time_embedding_type="fourier")
    prior = load_prior((unet, ScoreSdeVeScheduler(sigma_min=0.05, sigma_max=40.0)))
    assert (prior.sigma_min, prior.sigma_max) == (0.1, 80.0)


def test_a_level_of_noise_alone_is_left_out_and_the_others_stay() -> None:
    from diffusers import DDPMScheduler

    kinds = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    prior = load_prior((tiny_unet(3, 16), DDPMScheduler(**kinds)))
    alphas = DDPMScheduler(**kinds).alphas_cumprod
    assert alphas[-1] < 1e-6
    assert prior.sigma_max == pytest.approx(((1 - alphas[-2]) / alphas[-2]).sqrt().item())


def test_a_class_conditional_consistency_pipeline_gives_the_same_picture_of_a_class(
    tmp_path: Path,
) -> None:
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline

    unet = tiny_unet(3, 16, num_class_embeds=4)
    pipeline = ConsistencyModelPipeline(unet, CMStochasticIterativeScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    noise = _noise(1, 3, 16, 16)
    pictures = []
    for source in (tmp_path, pipeline):
        for label in (1, 2):
            prior = load_prior(source, class_label=label)
            assert isinstance(prior, ConsistencyPrior)
            ours = prior.clip(prior.consistency(80.0 * noise, 80.0)) / 2 + 0.5
            theirs = pipeline(
                class_labels=label, num_inference_steps=1, latents=noise, output_type="pt"
            ).images
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            pictures.append(ours)
    assert (pictures[0] - pictures[1]).abs().max() > 1e-5


def test_models_that_are_no_denoisers_or_see_more_than_an_image_are_refused() -> None:
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler, UNet2DModel

    unet = tiny_unet(3, 16)
    with pytest.raises(InputError, match="latent consistency model"):
        load_prior((unet, LCMScheduler()))
    with pytest.raises(InputError, match="from images to noise"):
        load_prior((unet, FlowMatchEulerDiscreteScheduler(invert_sigmas=True)))
    wide = UNet2DModel.from_config({**unet.config, "in_channels": 6})
    with pytest.raises(InputError, match="makes 3 channels of 6"):
        load_prior((wide, DDPMScheduler()))
    with pytest.raises(InputError, match="3 timesteps or more"):
        FlowPrior(unet, 2)
    with pytest.raises(InputError, match="not supported"):
        PreconditionedPrior(unet, prediction="sample")


def test_flow_predictions_of_other_schedulers_are_flows() -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}
    assert isinstance(scheduled(tiny_unet(3, 16), config), FlowPrior)
