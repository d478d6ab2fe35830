"""Models of one size on images of another: where the network allows it, and what is said else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import tiny_edm, tiny_kl, tiny_unet
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import (
    ConsistencyPrior,
    EDMPrior,
    GaussianPrior,
    LatentPrior,
    from_callable,
    linear_latent,
    load_prior,
)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _published() -> Any:
    from diffusers import DDPMScheduler

    return load_prior((tiny_unet(3, 16), DDPMScheduler()))


def _retrained(prior: Any, shape: tuple[int, int, int]) -> Any:
    """The same weights in a network that was made for the other size."""
    unet = type(prior.unet).from_config({**prior.unet.config, "sample_size": list(shape[1:])})
    unet.load_state_dict(prior.unet.state_dict())
    return unet.eval().requires_grad_(False)


@pytest.mark.parametrize("attention", [False, True])
def test_a_published_network_at_another_size_is_that_network_built_for_the_size(
    attention: bool,
) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    config = dict(tiny_unet(3, 16).config)
    if attention:  # without any knowledge of places
        config |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
        config |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    torch.manual_seed(0)
    prior, shape = load_prior((UNet2DModel.from_config(config), DDPMScheduler())), (3, 24, 40)
    other, x = prior.at(shape), _noise(2, 3, 24, 40)
    expected = load_prior((_retrained(prior, shape), DDPMScheduler()))
    assert (other.shape, prior.shape) == (shape, (3, 16, 16))
    assert other.unet is prior.unet
    torch.testing.assert_close(other.denoise(x, 0.7), expected.denoise(x, 0.7))
    assert prior.denoise(_noise(2, 3, 16, 16), 0.7).shape == (2, 3, 16, 16)


def test_a_guided_diffusion_network_takes_other_sizes(tmp_path: Path) -> None:
    pytest.importorskip("azula")
    from adm_networks import WORDS, backbone

    torch.save(backbone().state_dict(), tmp_path / "model.pt")
    prior = load_prior(tmp_path / "model.pt", config=WORDS)
    same_levels = {"image_size": 32, "attention_resolutions": "16"}
    wider = load_prior(tmp_path / "model.pt", config={**WORDS, **same_levels})
    x = _noise(1, 3, 32, 32)
    torch.testing.assert_close(prior.at((3, 32, 32)).denoise(x, 0.7), wider.denoise(x, 0.7))
    with pytest.raises(InputError, match="not divisible by 2"):
        prior.at((3, 17, 16))


def test_our_own_priors_and_consistency_models_take_sizes_of_whole_patches() -> None:
    edm = tiny_edm()
    consistency = ConsistencyPrior(edm.unet, patch=2)
    x = _noise(2, 3, 8, 24)
    expected = EDMPrior(_retrained(edm, (3, 4, 12)), 0.5, 2)
    assert edm.at((3, 8, 24)).denoise(x, 0.5).equal(expected.denoise(x, 0.5))
    assert consistency.at((3, 8, 24)).consistency(x, 0.5).shape == x.shape
    for prior in (edm, consistency):
        with pytest.raises(InputError, match=r"10×24 is not divisible by 4.*to 12×24"):
            prior.at((3, 10, 24))


def test_the_error_at_one_size_is_not_taken_for_that_at_another() -> None:
    edm = tiny_edm()
    assert edm.at((3, 8, 24)).error(0.5) is None
    assert edm.at((3, 16, 16)) is edm
    assert edm.error(0.5) is not None


def test_a_latent_model_takes_sizes_that_its_latents_take() -> None:
    edm = EDMPrior(tiny_unet(4, 8), sigma_data=1.0, patch=1)
    prior = LatentPrior.from_models(tiny_kl(), edm, scaling=0.7, shift=0.1)
    other, x = prior.at((3, 32, 16)), _noise(2, 3, 32, 16)
    z = other.encode(x)
    torch.testing.assert_close(z, 0.7 * (prior.autoencoder.encode(x).latent_dist.mean - 0.1))
    assert (other.latent.shape, z.shape[1:]) == ((4, 16, 8), (4, 16, 8))
    assert other.latent.denoise(z, 0.5).shape == z.shape
    assert other.decode(z).shape == x.shape
    assert (prior.shape, prior.latent.shape) == ((3, 16, 16), (4, 8, 8))
    with pytest.raises(InputError, match="not divisible by 2"):
        prior.at((3, 17, 16))
    with pytest.raises(InputError, match="9×8 is not divisible by 2"):
        prior.at((3, 18, 16))


def test_a_batch_at_another_size_is_split_by_what_an_image_of_that_size_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = _published()
    monkeypatch.setattr("diffsplit.priors.batches.SURELY", 10**9)
    with torch.no_grad():
        prior.denoise(_noise(2, 3, 16, 16), 0.7)
        other = prior.at((3, 32, 32))
        other.denoise(_noise(2, 3, 32, 32), 0.7)
    (small,), (large,) = prior._forward_bytes.values(), other._forward_bytes.values()
    assert large > 3 * small


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (_published, (1, 16, 16), "images of 3 channels"),
        (_published, (3, 16), "images of 3 channels"),
        (_published, (3, 16, 0), "positive sizes"),
        (_published, (3, 15, 16), r"15×16 is not divisible by 2.*to 16×16"),
        (lambda: GaussianPrior((3, 4, 4)), (3, 8, 8), "of the size that is wanted"),
        (lambda: from_callable(lambda x, s: x, (3, 4, 4)), (3, 8, 8), "alone"),
        (lambda: linear_latent(GaussianPrior((6,)), 3), (8,), "alone"),
        (lambda: load_prior("faces-256"), (3, 64, 64), r"\(3, 256, 256\) alone"),
        (lambda: load_prior("faces-256-gaussian"), (3, 64, 64), r"\(3, 256, 256\) alone"),
    ],
)
def test_a_size_that_is_not_possible_is_explained(
    make: Callable[[], Any], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make().at(shape)


def test_a_solver_recovers_an_image_of_another_size() -> None:
    import diffsplit as ds

    prior = _published().at((3, 8, 16))
    operator = ds.operators.PixelMask((3, 8, 16), 0.5, 0)
    problem = ds.Problem(operator, ds.channels.GaussianNoise(0.1))
    generator = torch.Generator().manual_seed(0)
    y = problem.measure(_noise(1, 3, 8, 16).clamp(-1, 1), generator=generator)
    result = ds.solvers.DiffEP()(problem, y, prior, generator=generator)
    assert result.image.shape == (1, 3, 8, 16)
