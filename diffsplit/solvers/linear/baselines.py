"""Plain linear estimates, what a recovery is compared with: no network, and no training.

    bicubic     a reduced image, enlarged again
    mean fill   a masked image, its holes filled with the mean of what is known
    Wiener      a blurred or noisy image: the posterior mean if images were a stationary Gaussian,
                F x̂ = h* P/(|h|² P + σ²) F y, with h the transfer function of the blur

P is the power that a natural image has at frequency f, in cycles per image: P ∝ (1 + f²)^(−3/2),
scaled to the mean square 0.25. Of the powers (f_0² + f²)^(−α/2) with α in 1 … 4 it gives the best
PSNR of noisy blurs and of denoising on the eight bundled cats: a comparison in the filter's favor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2
from torch.nn.functional import interpolate

from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.operators.downsample import Downsample
from diffsplit.operators.mask import PixelMask
from diffsplit.problem import Problem
from diffsplit.solvers.spectral.renoising import NOISE_FLOOR

__all__ = ["baseline", "bicubic", "mean_fill", "natural_power", "wiener"]

MEAN_SQUARE = 0.25


@torch.no_grad()
def baseline(problem: Problem, y: Tensor) -> tuple[str, Tensor]:
    """The plain estimate that goes with a problem, and its name.

    Args:
        y: measurements ``(B, *shape_out)``, on the operator's device.

    Returns:
        "bicubic" for a `Downsample`, "mean fill" for a `PixelMask`, "Wiener" for convolutions (the
        identity is one) in Gaussian noise; images ``(B, *shape_in)``, clipped to [-1, 1]. For
        anything else "A^T y", the back-projection, whose scale is that of A.

    Raises:
        InputError: ``y`` does not fit the problem.
    """
    problem.check(y)
    if isinstance(problem.operator, Downsample):
        return "bicubic", bicubic(problem, y).clamp(-1, 1)
    if isinstance(problem.operator, PixelMask):
        return "mean fill", mean_fill(problem, y).clamp(-1, 1)
    if problem.operator.stride == 1 and isinstance(problem.channel, GaussianNoise):
        return "Wiener", wiener(problem, y).clamp(-1, 1)
    return "A^T y", problem.backprojection(y)


def bicubic(problem: Problem, y: Tensor) -> Tensor:
    """Bicubic enlargement of reduced images: ``(B, C, h, w)`` to ``(B, *shape_in)``, not clipped.

    Raises:
        InputError: the operator is no `Downsample`.
    """
    operator = problem.operator
    if not isinstance(operator, Downsample):
        raise InputError(
            f"bicubic enlargement undoes a Downsample, not {type(operator).__name__}; use baseline."
        )
    return interpolate(_numbers(problem, y), operator.shape_in[1:], mode="bicubic")


def mean_fill(problem: Problem, y: Tensor) -> Tensor:
    """Known pixels as they were measured, the others at the mean of each image and channel.

    A channel of which nothing is known becomes 0, the middle of [-1, 1].

    Args:
        y: known entries ``(B, M)``.

    Returns:
        ``(B, *shape_in)``, not clipped.

    Raises:
        InputError: the operator is no `PixelMask`.
    """
    operator = problem.operator
    if not isinstance(operator, PixelMask):
        raise InputError(
            f"mean filling undoes a PixelMask, not {type(operator).__name__}; use baseline."
        )
    known = operator.adjoint(_numbers(problem, y))
    count = operator.mask.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(operator.mask, known, known.sum((2, 3), keepdim=True) / count)


def wiener(problem: Problem, y: Tensor, power: Tensor | None = None) -> Tensor:
    """The Wiener filter: the posterior mean under a stationary Gaussian of mean 0.

    Noise below 1e-3 counts as 1e-3, a quarter of the rounding error of an 8-bit image.

    Args:
        y: measurements ``(B, C, H, W)``, of noise σ in the units of A x.
        power: P, the variance of each coefficient of the orthonormal Fourier transform of an image
            on [-1, 1], ``(H, W//2 + 1)`` or ``(C, H, W//2 + 1)`` as `torch.fft.rfft2` orders them;
            None for `natural_power`.

    Returns:
        ``(B, C, H, W)``, not clipped.

    Raises:
        InputError: the operator is no convolution with a circular boundary, or the noise is not
            Gaussian.
    """
    operator, channel = problem.operator, problem.channel
    if operator.stride != 1 or not isinstance(channel, GaussianNoise):
        raise InputError(
            "the Wiener filter undoes a convolution with a circular boundary in Gaussian noise, "
            f"not {type(operator).__name__} and {type(channel).__name__}; use baseline."
        )
    height, width = operator.shape_in[1:]
    if power is None:
        power = natural_power(height, width)
    power = power.to(y.device, torch.float64)
    impulse = torch.zeros(1, *operator.shape_in, dtype=torch.float64, device=y.device)
    impulse[..., 0, 0] = 1
    square = rfft2(operator.apply(impulse)).abs().square()
    gain = power / (square * power + max(channel.sigma, NOISE_FLOOR) ** 2)
    x: Tensor = irfft2(gain * rfft2(operator.adjoint(y.double())), (height, width))
    return x.to(y.dtype if y.is_floating_point() else torch.get_default_dtype())


def natural_power(height: int, width: int) -> Tensor:
    """P of natural images on [-1, 1], ``(height, width//2 + 1)`` in float64; see above."""
    f = fftfreq(height, 1 / height, dtype=torch.float64)[:, None]
    g = fftfreq(width, 1 / width, dtype=torch.float64)
    power: Tensor = (1 + f.square() + g.square()) ** -1.5
    power = power * (MEAN_SQUARE / power.mean())
    return power[:, : width // 2 + 1]


def _numbers(problem: Problem, y: Tensor) -> Tensor:
    """Measurements of any channel and dtype as floats in the units of A x."""
    values = problem.channel.value(y)
    return values if values.is_floating_point() else values.float()
