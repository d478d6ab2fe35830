from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.metrics import cosine_similarity, norm_error, psnr, ssim


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
