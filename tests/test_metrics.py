from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffsplit.metrics
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.metrics import cosine_similarity, lpips, norm_error, psnr, ssim


def pair(batch: int = 3, size: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(batch, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.1, 0.4, batch, dtype=torch.float64).view(-1, 1, 1, 1)
    return truth + scale * noise, truth


def direct_ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004, Eq. 13, around every pixel of one image, mirrored at the border."""
    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    line = torch.exp(-((torch.arange(11, dtype=a.dtype) - 5) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def blur(x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x[:, None], (5, 5, 5, 5), mode="reflect")
        return torch.nn.functional.conv2d(padded, window)

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    numerator = (2 * ma * mb + c1) * (2 * cov + c2)
    return float((numerator / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def test_psnr_is_the_log_of_four_over_the_mean_squared_error_of_each_image() -> None:
    x, truth = pair()
    expected = [
        10 * math.log10(4 / float(((a - b) ** 2).mean())) for a, b in zip(x, truth, strict=True)
    ]
    torch.testing.assert_close(psnr(x, truth).tolist(), expected)


def test_an_error_of_one_gray_level_everywhere_has_48_decibels() -> None:
    truth = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    value = psnr(truth + 2 / 255, truth).item()
    assert value == pytest.approx(20 * math.log10(255), abs=1e-9)


def test_ssim_agrees_with_its_formula() -> None:
    x, truth = pair()
    expected = [direct_ssim(a, b) for a, b in zip(x, truth, strict=True)]
    torch.testing.assert_close(ssim(x, truth).tolist(), expected, rtol=1e-6, atol=1e-6)


def test_ssim_and_cosine_of_an_image_with_itself_are_one_and_norm_error_zero() -> None:
    _, truth = pair()
    one = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(ssim(truth, truth), one)
    torch.testing.assert_close(cosine_similarity(truth, truth), one)
    torch.testing.assert_close(norm_error(truth, truth), 0 * one)


def test_cosine_ignores_a_scale_and_norm_error_measures_it_alone() -> None:
    _, truth = pair()
    one = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity(0.3 * truth, truth), one)
    torch.testing.assert_close(norm_error(-0.3 * truth, truth), 0.7 * one)


@pytest.mark.parametrize("metric", [psnr, ssim, cosine_similarity, norm_error])
def test_metrics_of_a_batch_are_those_of_its_images(metric) -> None:
    x, truth = pair()
    alone = torch.cat([metric(x[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(metric(x, truth), alone)


@pytest.mark.parametrize("metric", [psnr, ssim, cosine_similarity, norm_error])
def test_metrics_refuse_two_shapes(metric) -> None:
    x, truth = pair()
    with pytest.raises(InputError, match="cannot be compared"):
        metric(x[:1], truth)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    x, truth = pair(size=10)
    with pytest.raises(InputError, match="11×11"):
        ssim(x, truth)


@pytest.fixture
def fresh_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for torchvision's weights, and no network left from another test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    diffsplit.metrics._lpips_network.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    diffsplit.metrics._lpips_network.cache_clear()


@pytest.fixture
def squeezenet(fresh_networks: Path) -> None:
    """Random weights where torchvision keeps those it has downloaded."""
    torchvision = pytest.importorskip("torchvision", reason="the eval extra is not installed")
    name = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    fresh_networks.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save(weights, fresh_networks / name)


@pytest.mark.usefixtures("squeezenet")
def test_lpips_is_zero_for_equal_images_and_one_number_an_image() -> None:
    x, truth = pair(size=64)
    value = lpips(x, truth, net="squeeze")
    alone = torch.cat([lpips(x[i : i + 1], truth[i : i + 1], net="squeeze") for i in range(3)])
    assert (lpips(truth, truth, net="squeeze") == 0).all()
    assert (value > 0).all()
    torch.testing.assert_close(value, alone, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("squeezenet")
def test_lpips_is_that_of_torchmetrics_for_clipped_pictures() -> None:
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as reference

    x, truth = (2 * image for image in pair(size=64))
    clipped = (image.float().clamp(-1, 1) for image in (x, truth))
    expected = reference(*clipped, net_type="squeeze", reduction="none")
    torch.testing.assert_close(lpips(x, truth, net="squeeze"), expected.double())


@pytest.mark.usefixtures("squeezenet")
def test_lpips_has_a_gradient_even_if_its_network_was_loaded_in_inference_mode() -> None:
    x, truth = pair(size=64)
    with torch.inference_mode():
        lpips(x, truth, net="squeeze")
    x.requires_grad_()
    lpips(x, truth, net="squeeze").sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.usefixtures("squeezenet")
def test_lpips_explains_weights_that_cannot_be_read(fresh_networks: Path) -> None:
    (file,) = fresh_networks.iterdir()
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="could not load the weights"):
        lpips(*pair(size=64), net="squeeze")


def test_lpips_without_torchvision_names_the_extra(
    fresh_networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"diffsplit\[eval\]"):
        lpips(*pair(size=64))


def test_lpips_says_where_the_weights_go_when_they_cannot_be_downloaded(
    fresh_networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision", reason="the eval extra is not installed")

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(InputError, match=r"no route to host.*checkpoints"):
        lpips(*pair(size=64))


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_lpips_refuses_images_that_its_networks_cannot_see(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="32×32"):
        lpips(torch.zeros(shape), torch.zeros(shape))


def test_lpips_refuses_integers_whose_range_is_another() -> None:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(InputError, match="uint8"):
        lpips(image, image)


def test_lpips_refuses_an_unknown_backbone() -> None:
    with pytest.raises(InputError, match="resnet"):
        lpips(*pair(size=64), net="resnet")
