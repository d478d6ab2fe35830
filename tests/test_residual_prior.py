"""A network on top of a Wiener filter: where it starts, what it keeps on disk, what it gains."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.images import load_image
from diffsplit.priors import ErrorCurve, GaussianSpectrum, ResidualPrior, load_prior
from diffsplit.priors.patched import build_unet

SHARED = Path(os.environ.get("DIFFSPLIT_SHARED", Path(__file__).parents[2] / "shared"))
START = SHARED / "priors" / "faces-256-start.safetensors"
FACE = SHARED / "data" / "ffhq-256" / "00000.png"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def residual(std: float = 0.05, attention: int = 1) -> ResidualPrior:
    """A prior of 3×16×16 images; ``std`` 0 leaves its network at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = build_unet(16, 2, (16, 32), inputs=2, attention=attention)
        torch.nn.init.normal_(unet.conv_out.weight, std=std)
    frequency = torch.arange(16)
    variances = (2.0 / (1 + frequency[:, None] + frequency) ** 2).expand(3, 16, 16)
    gaussian = GaussianSpectrum(variances, 0.1, sigma_min=0.01)
    curve = ErrorCurve((0.01, 1.0, 100.0), (1e-4, 0.05, 0.25))
    unet = unet.eval().requires_grad_(False)
    return ResidualPrior(unet, gaussian, 0.5, 2, curve=curve, facts={"name": "tiny"})


def test_with_a_network_at_zero_it_is_the_gaussian() -> None:
    prior, x = residual(std=0.0), noise(2, 3, 16, 16)
    for sigma in (0.05, 1.0, 30.0):
        expected = prior.gaussian.denoise(x, sigma)
        torch.testing.assert_close(prior.denoise(x, sigma), expected, rtol=0, atol=0)


def test_the_network_sees_the_filtered_and_the_noisy_image_and_its_answer_is_scaled() -> None:
    prior, x, sigma = residual(), noise(1, 3, 16, 16), 0.7
    seen: list[Any] = []
    hook = prior.unet.register_forward_hook(lambda _, args, out: seen.append((*args, out[0])))
    answer = prior.denoise(x, sigma)
    hook.remove()
    patches, time, out = seen[0]
    linear, noisy = torch.nn.functional.pixel_shuffle(patches, 2).chunk(2, 1)
    torch.testing.assert_close(linear, prior.gaussian.denoise(x, sigma) / 0.5)
    torch.testing.assert_close(noisy, x / (0.7**2 + 0.5**2) ** 0.5)
    assert time.item() == pytest.approx(250 * torch.tensor(sigma).log().item(), rel=1e-6)
    correction = prior.gaussian.error(sigma).sqrt() * torch.nn.functional.pixel_shuffle(out, 2)
    torch.testing.assert_close(answer, 0.5 * linear + correction)
    assert answer.is_contiguous()


def test_a_batch_with_a_level_for_each_image_is_what_its_images_are_alone() -> None:
    prior = residual()
    prior.unet.double()
    x, sigma = noise(3, 3, 16, 16).double(), torch.tensor([0.05, 0.8, 20.0]).double()
    together = prior.denoise(x, sigma)
    for i in range(3):
        alone = prior.denoise(x[i : i + 1], sigma[i].item())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


def test_the_pullback_is_the_transpose_of_the_directional_derivative() -> None:
    prior, step, sigma = residual(), 1e-5, 0.6
    prior.unet.double()
    x, v, u = (noise(2, 3, 16, 16, seed=seed).double() for seed in range(3))
    _, pullback = prior.vjp(x, sigma)
    ahead, behind = prior.denoise(x + step * v, sigma), prior.denoise(x - step * v, sigma)
    expected = (u * (ahead - behind)).sum() / (2 * step)
    torch.testing.assert_close((pullback(u) * v).sum(), expected, rtol=1e-6, atol=1e-8)


def test_a_saved_prior_comes_back_bit_by_bit_or_to_half_precision(tmp_path: Path) -> None:
    prior, x = residual(), noise(2, 3, 16, 16)
    prior.save(tmp_path / "whole", half=False)
    loaded = load_prior(tmp_path / "whole")
    assert isinstance(loaded, ResidualPrior)
    assert torch.equal(loaded.denoise(x, 0.8), prior.denoise(x, 0.8))
    assert (loaded.curve, loaded.facts) == (prior.curve, prior.facts)
    prior.save(tmp_path / "half")
    rounded = load_prior(tmp_path / "half")
    assert isinstance(rounded, ResidualPrior)
    torch.testing.assert_close(rounded.denoise(x, 0.8), prior.denoise(x, 0.8), rtol=1e-2, atol=1e-2)
    rounded.save(tmp_path / "again")
    again = load_prior(tmp_path / "again")
    assert isinstance(again, ResidualPrior)
    assert torch.equal(again.denoise(x, 0.8), rounded.denoise(x, 0.8))


def test_the_network_computes_in_half_precision_where_that_is_asked_for(tmp_path: Path) -> None:
    prior, x = residual(), noise(2, 3, 16, 16)
    prior.save(tmp_path)
    lower = load_prior(tmp_path, dtype=torch.bfloat16)
    assert isinstance(lower, ResidualPrior)
    answer, exact = lower.denoise(x, 0.8), prior.denoise(x, 0.8)
    assert answer.dtype == torch.float32
    assert 0 < (answer - exact).abs().max() < 0.02
    with pytest.raises(InputError, match="bfloat16"):
        load_prior(tmp_path, dtype=torch.float64)
    with pytest.raises(InputError, match="GaussianSpectrum"):
        load_prior(prior.gaussian, dtype=torch.bfloat16)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    prior = residual()
    with pytest.raises(InputError, match="belong together"):
        ResidualPrior(prior.unet, GaussianSpectrum(torch.ones(3, 8, 8)), 0.5, 2)
    with pytest.raises(InputError, match="patches"):
        ResidualPrior(build_unet(16, 2, (16, 32)), prior.gaussian, 0.5, 2)
    with pytest.raises(InputError, match="attention"):
        build_unet(16, 2, (16, 32), attention=3)
    prior.save(tmp_path)
    (tmp_path / "gaussian" / "prior.json").unlink()
    with pytest.raises(InputError, match="gaussian"):
        load_prior(tmp_path)


def test_the_gaussian_moves_with_the_network() -> None:
    prior = residual()
    assert prior.to("meta") is prior
    assert (prior.device.type, prior.gaussian.device.type) == ("meta", "meta")


def trained_on_faces() -> ResidualPrior:
    """The network of the start weights; how they are laid out is described beside them."""
    from diffusers import UNet2DModel
    from safetensors import safe_open

    with safe_open(START, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    other = ("network", "patch", "sigma_data", "mean_square", "time", "images_seen", "validation")
    unet = UNet2DModel(**{key: value for key, value in config.items() if key not in other})
    weights = {name: tensor.float() for name, tensor in tensors.items() if name[:2] == "u."}
    unet.load_state_dict({name[2:]: tensor for name, tensor in weights.items()})
    gaussian = GaussianSpectrum(tensors["lam"], tensors["mean"][0], tensors["colors"])
    return ResidualPrior(unet.eval(), gaussian, config["sigma_data"], config["patch"])


@pytest.mark.skipif(
    not (START.exists() and FACE.exists()),
    reason="needs the start weights and a face of FFHQ, see DIFFSPLIT_SHARED",
)
def test_weights_trained_on_faces_denoise_a_face_better_than_the_gaussian_alone(
    tmp_path: Path,
) -> None:
    made = trained_on_faces()
    made.save(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size < 32e6
    prior = load_prior(tmp_path)
    assert isinstance(prior, ResidualPrior)
    x = load_image(FACE)
    with torch.no_grad():
        for sigma in (0.2, 1.0):
            noisy = x + sigma * noise(*x.shape)
            error = (prior.denoise(noisy, sigma) - x).square().mean()
            linear = (prior.gaussian.denoise(noisy, sigma) - x).square().mean()
            assert error < 0.75 * linear
