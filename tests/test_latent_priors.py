"""Latent and consistency models: published layouts, our own folders, and closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny_networks import tiny_kl, tiny_unet, tiny_vq
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    DiffusersPrior,
    EDMPrior,
    GaussianConsistency,
    GaussianPrior,
    LatentPrior,
    from_callable,
    linear_latent,
    load_prior,
)


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture
def own():
    """A latent prior as we train them: a KL autoencoder and an EDM denoiser in its latents."""
    edm = EDMPrior(tiny_unet(4, 8), sigma_data=1.0, patch=1, sigma_min=0.02, sigma_max=150.0)
    return LatentPrior.from_models(tiny_kl(), edm, scaling=0.7, shift=0.1, facts={"name": "tiny"})


def test_a_published_latent_pipeline_with_a_vq_autoencoder_loads_and_honors_its_scaling(tmp_path):
    from diffusers import DDIMScheduler, LDMPipeline

    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    vq, unet = tiny_vq(0.3), tiny_unet(3, 8)
    LDMPipeline(vq, unet, scheduler).save_pretrained(tmp_path)
    prior = load_prior(tmp_path)
    assert isinstance(prior, LatentPrior)
    assert (prior.shape, prior.latent.shape) == ((3, 16, 16), (3, 8, 8))
    assert prior.latent.bounds is None
    x = _randn(2, 3, 16, 16, dtype=torch.float32)
    z = prior.encode(x)
    torch.testing.assert_close(z, 0.3 * vq.encode(x).latents)
    torch.testing.assert_close(prior.decode(z), vq.decode(z / 0.3).sample)
    expected = DiffusersPrior(unet, scheduler.alphas_cumprod)
    torch.testing.assert_close(prior.latent.denoise(z, 0.9), expected.denoise(z, 0.9))


def _forget_scaling(config):
    facts = json.loads(config.read_text())
    del facts["scaling_factor"]
    config.write_text(json.dumps(facts))


def test_a_vq_autoencoder_from_before_there_was_a_scaling_has_none(tmp_path):
    """As CompVis/ldm-celebahq-256, whose file is of diffusers 0.1.2; a KL one has its default."""
    from diffusers import DDIMScheduler, LDMPipeline, VQModel

    LDMPipeline(tiny_vq(0.3), tiny_unet(3, 8), DDIMScheduler()).save_pretrained(tmp_path / "vq")
    _forget_scaling(tmp_path / "vq" / "vqvae" / "config.json")
    loaded = LDMPipeline.from_pretrained(tmp_path / "vq")
    assert loaded.vqvae.config.scaling_factor == 0.18215
    x = _randn(2, 3, 16, 16, dtype=torch.float32)
    for source in (tmp_path / "vq", loaded):
        prior = load_prior(source)
        torch.testing.assert_close(prior.encode(x), loaded.vqvae.encode(x).latents)
    config = {k: v for k, v in tiny_vq(0.3).config.items() if k[0] != "_" and k != "scaling_factor"}
    made = LDMPipeline(VQModel(**config), tiny_unet(3, 8), DDIMScheduler())
    assert load_prior(made).scaling == 0.18215
    for part, model in (("vae", tiny_kl()), ("unet", tiny_unet(4, 8))):
        model.save_pretrained(tmp_path / "kl" / part)
    _forget_scaling(tmp_path / "kl" / "vae" / "config.json")
    assert load_prior(tmp_path / "kl").scaling == 0.18215


def test_a_class_conditional_latent_pipeline_with_a_kl_autoencoder_evaluates_one_class(tmp_path):
    from diffusers import DDPMScheduler

    kl, unet = tiny_kl(scaling_factor=0.2, shift_factor=0.05), tiny_unet(4, 8, num_class_embeds=5)
    for model, part in ((kl, "vae"), (unet, "unet"), (DDPMScheduler(), "scheduler")):
        model.save_pretrained(tmp_path / part)
    prior = load_prior(tmp_path, class_label=3)
    x, z = _randn(2, 3, 16, 16, dtype=torch.float32), _randn(2, 4, 8, 8, dtype=torch.float32)
    mean = kl.encode(x).latent_dist.mean
    torch.testing.assert_close(prior.encode(x), 0.2 * (mean - 0.05))
    torch.testing.assert_close(prior.decode(z), kl.decode(z / 0.2 + 0.05).sample)
    sigma = torch.tensor([1.3, 1.3])
    t, alpha = prior.latent.timestep(sigma), 1 / math.sqrt(1 + 1.3**2)
    noise = unet(alpha * z, t, class_labels=torch.tensor([3, 3])).sample
    torch.testing.assert_close(prior.latent.denoise(z, 1.3), z - 1.3 * noise)
    other = load_prior(tmp_path, class_label=1).latent.denoise(z, 1.3)
    assert (prior.latent.denoise(z, 1.3) - other).abs().max() > 1e-6
    for label, words in ((None, "class_label"), (5, "class 5 does not exist")):
        with pytest.raises(InputError, match=words):
            load_prior(tmp_path, class_label=label)


def test_our_own_latent_prior_comes_back_from_its_folder(own, tmp_path):
    own.save(tmp_path / "prior", half=False)
    loaded = load_prior(tmp_path / "prior")
    assert isinstance(loaded, LatentPrior)
    assert loaded.facts == {"name": "tiny"}
    assert loaded.describe()["autoencoder_parameters"] > 0
    x, z = _randn(2, 3, 16, 16, dtype=torch.float32), _randn(2, 4, 8, 8, dtype=torch.float32)
    torch.testing.assert_close(loaded.encode(x), own.encode(x))
    torch.testing.assert_close(loaded.decode(z), own.decode(z))
    torch.testing.assert_close(loaded.latent.denoise(z, 0.5), own.latent.denoise(z, 0.5))
    own.save(tmp_path / "half")
    close = load_prior(tmp_path / "half").decode(z)
    torch.testing.assert_close(close, own.decode(z), rtol=0.02, atol=0.02)


def test_broken_latent_folders_are_explained(own, tmp_path):
    own.save(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable AutoencoderKL"):
        load_prior(tmp_path)
    file = tmp_path / "prior.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    with pytest.raises(InputError, match="version 1; update"):
        load_prior(tmp_path)
    with pytest.raises(InputError, match="do not belong together"):
        LatentPrior.from_models(tiny_kl(3), own.latent)
    published = LatentPrior.from_models(tiny_vq(1.0), from_callable(lambda x, s: x, (3, 8, 8)))
    with pytest.raises(InputError, match="can be saved"):
        published.save(tmp_path / "other")


def test_a_published_consistency_pipeline_gives_the_same_picture_from_noise(tmp_path):
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline

    scheduler = CMStochasticIterativeScheduler(sigma_data=0.4)
    pipeline = ConsistencyModelPipeline(tiny_unet(3, 16), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    prior = load_prior(tmp_path)
    assert isinstance(prior, ConsistencyPrior)
    noise = _randn(2, 3, 16, 16, dtype=torch.float32)
    picture = pipeline(2, num_inference_steps=1, latents=noise, output_type="pt").images
    ours = prior.clip(prior.consistency(80.0 * noise, 80.0)) / 2 + 0.5
    torch.testing.assert_close(ours, picture, rtol=1e-4, atol=1e-5)


def test_our_own_consistency_model_comes_back_from_its_folder(tmp_path):
    prior = ConsistencyPrior(
        tiny_unet(12, 8), sigma_data=0.45, patch=2, mean_square=0.3, facts={"name": "tiny"}
    )
    prior.save(tmp_path, half=False)
    loaded = load_prior(tmp_path)
    assert isinstance(loaded, ConsistencyPrior)
    assert (loaded.shape, loaded.facts, loaded.mean_square) == ((3, 16, 16), {"name": "tiny"}, 0.3)
    x = _randn(2, 3, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(loaded.consistency(x, 0.7), prior.consistency(x, 0.7))


def test_a_consistency_model_leaves_images_at_its_least_noise_alone():
    prior = ConsistencyPrior(tiny_unet(3, 16))
    x = _randn(2, 3, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(prior.consistency(x, 0.002), x)
    torch.testing.assert_close(prior.consistency(x, 1e-9), x)
    assert (prior.consistency(x, 1.0) - x).abs().max() > 0.1


def _gaussian() -> GaussianPrior:
    root = _randn(6, 6, seed=3)
    return GaussianPrior((6,), torch.linspace(-1, 1, 6), root @ root.T / 6)


def test_the_consistency_function_of_a_gaussian_maps_noise_to_data():
    prior = _gaussian()
    f = GaussianConsistency(prior)
    sigma = 0.8
    noisy = prior.sample(100_000, torch.Generator().manual_seed(0)).double()
    noisy = noisy + sigma * _randn(100_000, 6, seed=1)
    answers = f.consistency(noisy, sigma)
    covariance = prior.basis @ torch.diag(prior.eigenvalues) @ prior.basis.T
    torch.testing.assert_close(answers.mean(0), prior.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(answers.T.cov(), covariance, rtol=0, atol=0.03)


def test_the_consistency_function_of_a_gaussian_is_constant_along_the_probability_flow():
    prior = _gaussian()
    f, x = GaussianConsistency(prior), 3 * _randn(4, 6)
    answer, levels = (
        f.consistency(x, 3.0),
        torch.linspace(math.log(3.0), math.log(0.01), 2001).exp(),
    )
    for now, after in zip(levels.tolist(), levels[1:].tolist(), strict=False):  # Heun's method
        slope = (x - prior.denoise(x, now)) / now
        ahead = x + (after - now) * slope
        x = x + (after - now) / 2 * (slope + (ahead - prior.denoise(ahead, after)) / after)
        if after in levels[[400, 1000, 2000]].tolist():
            torch.testing.assert_close(f.consistency(x, after), answer, rtol=1e-4, atol=1e-4)


def test_the_linear_autoencoder_projects_on_the_principal_components():
    prior = _gaussian()
    latent = linear_latent(prior, 3, scaling=2.0)
    x = _randn(5, 6)
    v = prior.basis[:, -3:]
    projected = prior.mean + (x - prior.mean) @ v @ v.T
    torch.testing.assert_close(latent.decode(latent.encode(x)), projected)
    torch.testing.assert_close(latent.encode(projected), latent.encode(x))
    draws = latent.encode(prior.sample(100_000, torch.Generator().manual_seed(0)).double())
    variances = latent.latent.eigenvalues
    torch.testing.assert_close(draws.var(0), variances, rtol=0.03, atol=0)
    torch.testing.assert_close(variances, 4 * prior.eigenvalues[-3:].flip(0))
    with pytest.raises(InputError, match="give 1 to 6"):
        linear_latent(prior, 7)
