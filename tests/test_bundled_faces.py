"""The bundled models of faces do on a face what their kind promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import diffsplit as ds
from diffsplit.io.images import example_face
from diffsplit.priors.load import BUNDLE, bundled_priors


@pytest.fixture(scope="module")
def noisy() -> tuple[Tensor, Tensor, float]:
    """A face, the same in noise, and its level."""
    x, sigma = example_face(), 0.5
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x, x + sigma * noise, sigma


@pytest.mark.parametrize("name", bundled_priors())
def test_a_bundled_prior_has_a_card_with_license_data_and_quality(name: str) -> None:
    card = (BUNDLE / name / "README.md").read_text("utf-8")
    for part in (f"# {name}", "license:", "## Data and license", "## Measured quality"):
        assert part in card
    assert not (BUNDLE / name / "training").exists()


def test_the_network_denoises_a_face_better_than_the_closed_form_under_it(
    noisy: tuple[Tensor, Tensor, float],
) -> None:
    x, seen, sigma = noisy
    network = ds.load_prior("faces-256").denoise(seen, sigma)
    closed = ds.load_prior("faces-256-gaussian").denoise(seen, sigma)
    assert (network - x).square().mean() < 0.8 * (closed - x).square().mean()


def test_the_consistency_model_answers_with_more_detail_than_the_denoiser(
    noisy: tuple[Tensor, Tensor, float],
) -> None:
    x, seen, sigma = noisy
    sample = ds.load_prior("faces-256-consistency").consistency(seen, sigma)
    mean = ds.load_prior("faces-256").denoise(seen, sigma)

    def detail(image: Tensor) -> float:
        return float((image[..., 1:] - image[..., :-1]).square().mean())

    assert detail(mean) < detail(sample) < 1.5 * detail(x)
    assert ds.metrics.psnr(sample.clamp(-1, 1), x).item() > 24


def test_the_autoencoder_keeps_a_face(noisy: tuple[Tensor, Tensor, float]) -> None:
    prior, x = ds.load_prior("faces-256-latent"), noisy[0]
    z = prior.encode(x)
    assert z.shape == (1, 3, 64, 64)
    assert ds.metrics.psnr(prior.decode(z).clamp(-1, 1), x).item() > 33
