from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import diffsplit.metrics
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.metrics import cosine_similarity, lpips, norm_error, psnr, sharpness, ssim


def pair(batch: int = 3, size: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(batch, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.1, 0.4, batch, dtype=torch.float64).view(-1, 1, 1, 1)
    return truth + scale * noise, truth


def ssim_of_scikit_image(a: Tensor, b: Tensor, border: int) -> float:
    """The mean that scikit-image documents, of one image (C, H, W) on [0, 1].

    With gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1 it filters with
    scipy's Gaussian cut at 3.5 standard deviations and leaves out a border of 5 pixels.
    """
    gaussian_filter = pytest.importorskip("scipy.ndimage").gaussian_filter
    c1, c2 = 0.01**2, 0.03**2
    x, y = a.numpy(), b.numpy()

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        filtered = (gaussian_filter(plane, 1.5, truncate=3.5, mode="mirror") for plane in image)
        return np.stack(list(filtered))

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    numerator = (2 * mx * my + c1) * (2 * cov + c2)
    values = numerator / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    rows, columns = (slice(border, size - border) for size in values.shape[1:])
    return float(values[:, rows, columns].mean())


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


def test_ssim_is_that_of_scikit_image_on_zero_to_one_but_for_its_border() -> None:
    x, truth = pair()  # noise takes x outside [-1, 1], and nothing is clipped
    assert x.abs().max() > 1.5
    unit = [((a + 1) / 2, (b + 1) / 2) for a, b in zip(x, truth, strict=True)]
    expected = [ssim_of_scikit_image(a, b, border=0) for a, b in unit]
    torch.testing.assert_close(ssim(x, truth).tolist(), expected, rtol=0, atol=1e-6)
    # Where both images are equal the similarity is 1, so that the border counts as it is said to.
    inside = torch.zeros_like(x)
    inside[..., 10:-10, 10:-10] = x[..., 10:-10, 10:-10] - truth[..., 10:-10, 10:-10]
    a, b = (truth[0] + inside[0] + 1) / 2, (truth[0] + 1) / 2
    shares = (14 * 14 * ssim_of_scikit_image(a, b, border=5) + (24 * 24 - 14 * 14)) / (24 * 24)
    assert ssim(truth + inside, truth)[0].item() == pytest.approx(shares, abs=1e-6)


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


def test_sharpness_is_the_ratio_of_the_total_variations() -> None:
    x, truth = pair()
    rows, columns = x.shape[-2:]

    def variation(image: torch.Tensor) -> float:
        down = [(image[:, i + 1] - image[:, i]).abs().mean() for i in range(rows - 1)]
        across = [(image[..., i + 1] - image[..., i]).abs().mean() for i in range(columns - 1)]
        return float(sum(down) / len(down) + sum(across) / len(across))

    expected = [variation(a) / variation(b) for a, b in zip(x, truth, strict=True)]
    torch.testing.assert_close(sharpness(x, truth).tolist(), expected)
    torch.testing.assert_close(sharpness(0.5 * truth, truth), 0.5 * sharpness(truth, truth))
    assert sharpness(x, torch.zeros_like(truth)).isnan().all()
    with pytest.raises(InputError, match="2×2"):
        sharpness(x[..., :1], truth[..., :1])


@pytest.mark.parametrize("metric", [psnr, ssim, cosine_similarity, norm_error, sharpness])
def test_metrics_of_a_batch_are_those_of_its_images(metric) -> None:
    x, truth = pair()
    alone = torch.cat([metric(x[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(metric(x, truth), alone)


@pytest.mark.parametrize("metric", [psnr, ssim, cosine_similarity, norm_error, sharpness])
def test_half_precision_is_compared_in_single(metric) -> None:
    x, truth = pair()
    half = metric(x.half(), truth.bfloat16())
    assert half.dtype == torch.float32
    double = metric(x.half().double(), truth.bfloat16().double())
    torch.testing.assert_close(half.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", [psnr, ssim, lpips, cosine_similarity, norm_error, sharpness])
@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda x: x[:1], "cannot be compared"),
        (lambda x: x.numpy(), r"ds\.images\.from_numpy"),
        (lambda x: x.to(torch.uint8), r"ds\.images\.from_uint8"),
        (lambda x: x.to("meta"), r"\.to\(device\)"),
    ],
    ids=["shapes", "array", "bytes", "devices"],
)
def test_what_cannot_be_compared_is_refused(metric, change, advice: str) -> None:
    x, truth = pair(size=40)
    with pytest.raises(InputError, match=advice):
        metric(change(x), truth)


@pytest.mark.parametrize("metric", [psnr, ssim, lpips])
def test_bytes_turned_to_floats_are_no_images(metric) -> None:
    x, truth = (255 * (image + 1) / 2 for image in pair(size=40))
    with pytest.raises(InputError, match=r"ds\.images\.from_uint8"):
        metric(x, truth)


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


def test_lpips_refuses_an_unknown_backbone() -> None:
    with pytest.raises(InputError, match="resnet"):
        lpips(*pair(size=64), net="resnet")
