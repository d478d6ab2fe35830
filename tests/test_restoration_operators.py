"""Blur, reduction, color: what each does to an image, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from operator_cases import SHAPE, randn
from PIL import Image
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    ChannelMix,
    Downsample,
    Grayscale,
    PixelMask,
    ScaledIdentity,
)
from diffsplit.operators.kernels import motion_kernel

# Blur


def _mirror(i: int, size: int) -> int:
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i


def _direct(x: Tensor, kernel: Tensor, boundary: str) -> Tensor:
    """One channel, by the definition."""
    (height, width), (h, w) = x.shape, kernel.shape
    y = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            for t in range(h):
                for u in range(w):
                    row, column = i - t + h // 2, j - u + w // 2
                    if boundary == "circular":
                        row, column = row % height, column % width
                    else:
                        row, column = _mirror(row, height), _mirror(column, width)
                    y[i, j] += kernel[t, u] * x[row, column]
    return y


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (4, 5), (5, 2), (6, 7)])
def test_blur_is_the_convolution_of_its_definition(boundary, size):
    kernel, x = randn(2, *size), randn(1, 2, 6, 7)
    operator = Blur((2, 6, 7), kernel, boundary)
    expected = torch.stack([_direct(x[0, c], operator.kernel[c], boundary) for c in (0, 1)])
    torch.testing.assert_close(operator(x)[0], expected)
    shared = Blur((2, 6, 7), kernel[0], boundary)
    torch.testing.assert_close(shared(x)[0, 0], expected[0])


@pytest.mark.parametrize("shape", [(1, 6, 7), (2, 40, 33)])
def test_reflecting_blur_has_an_exact_adjoint(shape):
    operator = Blur(shape, randn(6, 7), "reflect")
    x, y = randn(2, *shape), randn(2, *shape, seed=6)
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert abs(left - right) < 1e-12 * operator(x).norm() * y.norm()


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
@pytest.mark.parametrize("size", [1, 4, 7, 8])
def test_normalized_kernels_keep_a_constant_image(boundary, size):
    flat = torch.full((1, *SHAPE), 0.3, dtype=torch.float64)
    for operator in (
        Blur.gaussian(SHAPE, size=size, std=1.5, boundary=boundary),
        Blur.motion(SHAPE, size=size, intensity=0.5, seed=1, boundary=boundary),
    ):
        torch.testing.assert_close(operator(flat), flat)


def test_gaussian_kernel_has_its_standard_deviation_and_no_shift():
    kernel = Blur.gaussian((1, 64, 64), size=41, std=3.0).kernel[0]
    t = torch.arange(41, dtype=torch.float64) - 20
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel.sum(1) @ t).item() == pytest.approx(0, abs=1e-12)
    assert (kernel.sum(0) @ t.square()).item() == pytest.approx(9, rel=1e-6)
    impulse = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    impulse[0, 0, 30, 20] = 1
    blurred = Blur.gaussian((1, 64, 64), size=40, std=3.0)(impulse)
    assert blurred.argmax() == impulse.argmax()


def test_a_given_kernel_is_used_as_it_is_in_float32():
    kernel = 7 * randn(3, 3)
    assert torch.equal(Blur(SHAPE, kernel).kernel[0], kernel.float().double())
    assert torch.equal(Blur(SHAPE, kernel.tolist()).kernel[0], kernel.float().double())


# Camera shake


@pytest.mark.parametrize("size", [1, 2, 3, 14, 15, 61])
@pytest.mark.parametrize("intensity", [0, 0.1, 0.5, 1])
def test_motion_kernels_are_nonnegative_of_sum_one_and_centered(size, intensity):
    for seed in range(5):
        kernel = motion_kernel(size, intensity, seed)
        assert kernel.shape == (size, size)
        assert (kernel >= 0).all()
        assert kernel.sum().item() == pytest.approx(1)
        t = torch.arange(size, dtype=torch.float64) - size // 2
        assert (kernel.sum(1) @ t).item() == pytest.approx(0, abs=1e-9)
        assert (kernel.sum(0) @ t).item() == pytest.approx(0, abs=1e-9)


def test_a_seed_names_one_motion_kernel():
    assert torch.equal(motion_kernel(31, 0.5, 0), motion_kernel(31, 0.5, 0))
    kernels = [motion_kernel(31, 0.5, seed) for seed in range(6)]
    for i, a in enumerate(kernels):
        assert all((a - b).abs().sum() > 0.5 for b in kernels[:i])


def _spread(kernel: Tensor) -> Tensor:
    """Standard deviations of the kernel along its principal axes, the smaller first."""
    t = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    cross = (kernel * t[:, None] * t).sum()
    rows, columns = kernel.sum(1) @ t.square(), kernel.sum(0) @ t.square()
    covariance = torch.stack([rows, cross, cross, columns]).reshape(2, 2)
    return torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()


@pytest.mark.parametrize("seed", range(8))
def test_motion_without_intensity_is_a_straight_line(seed):
    thickness, length = _spread(motion_kernel(61, 0, seed))
    assert thickness < 0.6  # of a pixel: what bilinear drawing makes of a line
    assert 61 * 0.45 < length * math.sqrt(12) < 61 * 0.85


def test_intensity_bends_the_path_of_the_camera():
    bends = [
        torch.stack([_spread(motion_kernel(61, intensity, s)).prod() for s in range(20)]).mean()
        for intensity in (0, 0.25, 0.6)
    ]
    assert bends[1] > 2 * bends[0]
    assert bends[2] > 1.2 * bends[1]


def test_paths_bend_without_any_impulse():
    # At this intensity a third of the exposures see no impulse; without noise they were straight.
    thickness = torch.stack([_spread(motion_kernel(61, 0.2, seed))[0] for seed in range(40)])
    assert thickness.quantile(0.1) > 0.7


@pytest.mark.parametrize("intensity", [0, 0.5, 1])
def test_motion_kernels_are_thin_connected_curves(intensity):
    for seed in range(6):
        seen = motion_kernel(61, intensity, seed) > 0
        assert seen.sum() < 61 * 61 / 6
        grown = torch.zeros_like(seen).flatten()
        grown[seen.flatten().nonzero()[0]] = True
        grown = grown.reshape(1, 61, 61).float()
        for _ in range(400):
            grown = torch.nn.functional.max_pool2d(grown, 3, 1, 1) * seen
        assert torch.equal(grown[0].bool(), seen)


# Reduction


@pytest.mark.parametrize(("shape", "factor"), [((3, 8, 12), 4), ((1, 9, 6), 3), ((2, 5, 5), 1)])
def test_average_is_the_mean_of_blocks(shape, factor):
    operator, x = Downsample(shape, factor), randn(2, *shape)
    torch.testing.assert_close(operator(x), torch.nn.functional.avg_pool2d(x, factor))
    assert operator.gram == ScaledIdentity(1 / factor**2)
    y = operator(x)
    torch.testing.assert_close(operator(operator.adjoint(y)), y / factor**2)


@pytest.mark.parametrize("kernel", ["average", "bicubic", "lanczos"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_reduction_agrees_with_pillow_away_from_the_border(kernel, factor):
    side = 24 * factor
    method = {"average": "BOX", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}[kernel]
    x = randn(side, side).float()
    size = (24, 24)
    small = Image.fromarray(x.numpy()).resize(size, Image.Resampling[method])
    ours = Downsample((1, side, side), factor, kernel)(x[None, None])[0, 0]
    expected = torch.from_numpy(np.array(small))
    torch.testing.assert_close(ours[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["average", "bicubic", "lanczos"])
@pytest.mark.parametrize(("shape", "factor"), [((1, 8, 8), 4), ((1, 6, 9), 3), ((1, 4, 4), 4)])
def test_reduction_keeps_constants_and_commutes_with_shifts_by_a_block(kernel, shape, factor):
    operator, x = Downsample(shape, factor, kernel), randn(2, *shape)
    flat = torch.full((1, *shape), 0.3, dtype=torch.float64)
    torch.testing.assert_close(operator(flat), torch.full((1, *operator.shape_out), 0.3).double())
    shifted = operator(x.roll((factor, factor), (2, 3)))
    torch.testing.assert_close(shifted, operator(x).roll((1, 1), (2, 3)))


# Color, boxes


def test_grayscale_is_the_luma_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    luma = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L"))).double()
    assert (Grayscale(SHAPE)(x)[0, 0] - luma).abs().max() <= 1
    operator = Grayscale(SHAPE)
    y = operator(x)
    torch.testing.assert_close(operator(operator.adjoint(y)), operator.gram.mean * y)


def test_channel_mix_multiplies_every_pixel_by_its_matrix():
    matrix, x = randn(2, 3), randn(2, *SHAPE)
    mixed = ChannelMix(SHAPE, matrix)(x)
    torch.testing.assert_close(mixed[1, :, 4, 5], matrix @ x[1, :, 4, 5])
    torch.testing.assert_close(ChannelMix(SHAPE, matrix.tolist())(x), mixed)


def test_box_takes_its_arguments_by_name():
    mask = PixelMask.box((3, 8, 8), top=1, left=2, height=3, width=4).mask
    assert (~mask).sum() == 3 * 3 * 4
    assert not mask[:, 1:4, 2:6].any()


# Refusals


@pytest.mark.parametrize(
    "build",
    [
        lambda: Downsample(SHAPE, 3),
        lambda: Downsample(SHAPE, 0),
        lambda: Downsample(SHAPE, 2.0),
        lambda: Downsample(SHAPE, 2, "nearest"),
        lambda: Downsample((8, 8), 2),
        lambda: Downsample((1, 8192, 8), 2, "bicubic"),
        lambda: Blur(SHAPE, torch.ones(9, 3)),
        lambda: Blur(SHAPE, torch.ones(2, 3, 3)),
        lambda: Blur(SHAPE, torch.ones(3)),
        lambda: Blur(SHAPE, torch.ones(0, 3)),
        lambda: Blur(SHAPE, torch.zeros(3, 3)),
        lambda: Blur(SHAPE, torch.stack([torch.ones(3, 3)] * 2 + [torch.zeros(3, 3)])),
        lambda: Blur(SHAPE, torch.full((3, 3), math.nan)),
        lambda: Blur(SHAPE, torch.full((3, 3), 1e300, dtype=torch.float64)),
        lambda: Blur(SHAPE, torch.ones(3, 3, dtype=torch.int64)),
        lambda: Blur(SHAPE, "kernel"),
        lambda: Blur(SHAPE, [[1.0], [1.0, 2.0]]),
        lambda: Blur(SHAPE, torch.ones(3, 3), "zero"),
        lambda: Blur.gaussian(SHAPE, size=9, std=1.0),
        lambda: Blur.gaussian(SHAPE, size=3, std=0),
        lambda: Blur.gaussian(SHAPE, size=3, std=-1.0),
        lambda: Blur.motion(SHAPE, size=5, intensity=1.1, seed=0),
        lambda: Blur.motion(SHAPE, size=5, intensity=-0.1, seed=0),
        lambda: Blur.motion(SHAPE, size=5, intensity=0.5, seed=-1),
        lambda: Blur.motion(SHAPE, size=5, intensity=0.5, seed=None),
        lambda: Grayscale((1, 8, 8)),
        lambda: ChannelMix(SHAPE, torch.ones(2, 4)),
        lambda: ChannelMix(SHAPE, torch.ones(3)),
        lambda: ChannelMix(SHAPE, torch.zeros(2, 3)),
        lambda: ChannelMix(SHAPE, [[1, 2, math.nan]]),
        lambda: ChannelMix((300, 2, 2), torch.ones(1, 300)),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(build):
    with pytest.raises(InputError) as caught:
        build()
    assert 20 < len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")
