"""Latent models in the layout of Stable Diffusion: the text, the latents, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import tiny_unet
from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors import LatentPrior, load_prior
from diffsplit.priors.text import check_text_network

PROMPT = "a cat"


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    pytest.importorskip("transformers")
    from tiny_text import tiny_stable_diffusion

    return tiny_stable_diffusion(tmp_path)


@pytest.mark.parametrize("prompt", [None, "", PROMPT])
def test_a_pipeline_and_its_folder_answer_as_the_library_does_without_guidance(
    pipeline: Any, tmp_path: Path, prompt: str | None
) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    z, step = _noise(2, 4, 8, 8), 400
    embedding, _ = pipeline.encode_prompt(prompt or "", "cpu", 1, False)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(1000)
    alpha = scheduler.alphas_cumprod[step].sqrt()
    sigma = ((1 - alpha**2).sqrt() / alpha).item()
    output = pipeline.unet(alpha * z, step, encoder_hidden_states=embedding.expand(2, -1, -1))
    expected = scheduler.step(output.sample, step, alpha * z).pred_original_sample
    x = _noise(2, 3, 16, 16)
    latents = 0.18215 * pipeline.vae.encode(x).latent_dist.mean
    for source in (pipeline, tmp_path / "model"):
        prior = load_prior(source, prompt=prompt)
        assert isinstance(prior, LatentPrior)
        assert (prior.shape, prior.latent.shape) == ((3, 16, 16), (4, 8, 8))
        answer = prior.latent.denoise(z, sigma)
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prior.encode(x), latents, rtol=1e-4, atol=1e-5)
        image = pipeline.vae.decode(z / 0.18215).sample
        torch.testing.assert_close(prior.decode(z), image, rtol=1e-4, atol=1e-4)
        wide, w = prior.at((3, 32, 16)), _noise(2, 4, 16, 8)
        output = pipeline.unet(alpha * w, step, encoder_hidden_states=embedding.expand(2, -1, -1))
        stepped = scheduler.step(output.sample, step, alpha * w).pred_original_sample
        torch.testing.assert_close(wide.latent.denoise(w, sigma), stepped, rtol=1e-4, atol=1e-4)
        half = load_prior(source, prompt=prompt, dtype=torch.bfloat16).latent.denoise(z, sigma)
        torch.testing.assert_close(half, expected, rtol=0.05, atol=0.05)


def test_two_prompts_give_two_answers_and_a_gradient_goes_through(pipeline: Any) -> None:
    cat, dog = (load_prior(pipeline, prompt=text).latent for text in (PROMPT, "dogs"))
    z = _noise(1, 4, 8, 8)
    assert (cat.denoise(z, 1.0) - dog.denoise(z, 1.0)).abs().max() > 1e-6
    answer, pullback = cat.vjp(z, 1.0)
    assert pullback(torch.ones_like(answer)).abs().sum() > 0


def test_loading_says_nothing_with_the_scheduler_that_stable_diffusion_comes_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers")
    import diffusers
    import transformers
    from tiny_text import tiny_stable_diffusion

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = diffusers.PNDMScheduler(
        **betas, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False
    )
    tiny_stable_diffusion(tmp_path, scheduler).save_pretrained(tmp_path / "model")
    libraries = diffusers.utils.logging, transformers.utils.logging
    for library in libraries:
        library.enable_propagation()
    try:
        with caplog.at_level("WARNING"):
            prior = load_prior(tmp_path / "model", prompt=PROMPT)
    finally:
        for library in libraries:
            library.disable_propagation()
    assert not caplog.records
    assert isinstance(prior, LatentPrior)
    assert prior.latent.sigma_max == pytest.approx(14.61, abs=0.01)


def test_a_prompt_that_is_too_long_or_no_text_or_of_no_use_is_refused(
    pipeline: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="longer than the 12 tokens"):
        load_prior(pipeline, prompt="a very long text about one cat")
    with pytest.raises(InputError, match="prompt is a text"):
        load_prior(pipeline, prompt=3)
    tiny_unet(3, 16).save_pretrained(tmp_path / "plain" / "unet")
    for source in (tmp_path / "plain", "cats-64"):
        with pytest.raises(InputError, match=r"told no text; leave prompt out"):
            load_prior(source, prompt=PROMPT)


def test_without_transformers_the_extra_is_named(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'diffsplit\[text\]'"):
        load_prior(tmp_path / "model")


def test_networks_of_other_layouts_are_refused_before_their_weights_are_read() -> None:
    clip = {"model_type": "clip_text_model"}
    check_text_network("a", {}, clip)
    for network, encoder, words in (
        ({}, {}, "without a text encoder"),
        ({}, {"model_type": "t5"}, "no clip_text_model"),
        ({"addition_embed_type": "text_time"}, clip, "more than a text"),
        ({"time_cond_proj_dim": 256}, clip, "more than a text"),
    ):
        with pytest.raises(InputError, match=words):
            check_text_network("a", network, encoder)


def test_an_inpainting_network_is_refused(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "unet" / "config.json"
    from diffusers import UNet2DConditionModel

    config = json.loads(file.read_text()) | {"in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "model" / "unet")
    with pytest.raises(InputError, match="makes 4 channels of 9"):
        load_prior(tmp_path / "model")
