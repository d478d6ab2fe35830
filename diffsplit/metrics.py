"""How close a recovered image is to the truth, one number per image.

All take images ``(B, C, H, W)`` on [-1, 1] and answer ``(B,)``. Sign consistency needs the
measurements and lives in `diffsplit.Problem.sign_consistency`.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffsplit.arguments import FAR_OUTSIDE, kind_of
from diffsplit.errors import InputError, MissingDependencyError

__all__ = ["cosine_similarity", "lpips", "norm_error", "psnr", "sharpness", "ssim"]

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; smaller images have no SSIM."""

LPIPS_SIDE = 32
"""Side in pixels that all the networks of LPIPS can take."""

Backbone = Literal["alex", "vgg", "squeeze"]


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(4 / MSE) in dB; infinite for equal images.

    Args:
        x, truth: ``(B, C, H, W)`` on [-1, 1]; ``x`` is not clipped.

    Returns:
        ``(B,)``; larger is better.

    Raises:
        InputError: the shapes differ.
    """
    x, truth = _pair(x, truth, on_range=True)
    error = (x - truth).flatten(1).square().mean(1)
    return 10 * torch.log10(4 / error)


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of the images on [0, 1], that is of (x + 1)/2, with data range 1.

    The window is Gaussian, 11×11 pixels with std 1.5. The mean is over colors and all pixels, with
    the image mirrored at its border; scikit-image leaves out five pixels at the border instead.
    Source: Wang et al. 2004, as torchmetrics computes it.

    Args:
        x, truth: ``(B, C, H, W)`` on [-1, 1], at least 11×11 pixels; ``x`` is not clipped.

    Returns:
        ``(B,)``; 1 for equal images.

    Raises:
        InputError: the shapes differ, or the images are too small.
        MissingDependencyError: torchmetrics is not installed.
    """
    x, truth = _pair(x, truth, on_range=True)
    if x.ndim != 4 or min(x.shape[-2:]) < SSIM_WINDOW:
        raise InputError(
            f"SSIM needs images (B, C, H, W) of at least {SSIM_WINDOW}×{SSIM_WINDOW} pixels, "
            f"not shape {tuple(x.shape)}; compare them by PSNR."
        )
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise MissingDependencyError("SSIM needs torchmetrics: pip install torchmetrics") from error
    value: Tensor = structural_similarity_index_measure(
        (x + 1) / 2, (truth + 1) / 2, data_range=1.0, reduction="none"
    )
    return value.reshape(len(x))


def sharpness(x: Tensor, truth: Tensor) -> Tensor:
    """Total variation of x over that of the truth: 1 is as sharp as the truth, less is smoother.

    Noise that is left counts as sharp, too. NaN where the truth is of one color.

    Args:
        x, truth: ``(B, C, H, W)`` of at least 2×2 pixels.

    Returns:
        ``(B,)``.

    Raises:
        InputError: the shapes differ, or the images are no images of that size.
    """
    x, truth = _pair(x, truth)
    if x.ndim != 4 or min(x.shape[-2:]) < 2:
        raise InputError(
            f"sharpness needs images (B, C, H, W) of at least 2×2 pixels, not {tuple(x.shape)}."
        )
    whole = _variation(truth)
    return torch.where(whole > 0, _variation(x) / whole, torch.nan)


def _variation(x: Tensor) -> Tensor:
    """Anisotropic total variation, the mean over the differences in each direction."""
    across, down = x.diff(dim=-1), x.diff(dim=-2)
    return across.abs().mean((1, 2, 3)) + down.abs().mean((1, 2, 3))


def lpips(x: Tensor, truth: Tensor, net: Backbone = "alex") -> Tensor:
    """Learned perceptual image patch similarity: how different two images look.

    Source: Zhang et al. 2018, version 0.1, as torchmetrics computes it, at the images' own size.
    The backbone's weights are torchvision's, which it downloads once.

    Args:
        x, truth: ``(B, 3, H, W)`` on [-1, 1], at least 32×32 pixels; clipped to [-1, 1].
        net: the backbone: "alex" (AlexNet, usual for comparing results), "vgg" or "squeeze".

    Returns:
        ``(B,)``; smaller is better, 0 for equal images.

    Raises:
        InputError: the shapes differ, the images are no RGB images or too small, or the weights
            are neither there nor to be had.
        MissingDependencyError: torchvision is not installed, or does not fit PyTorch.
    """
    x, truth = _pair(x, truth, on_range=True)
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[-2:]) < LPIPS_SIDE:
        raise InputError(
            f"LPIPS needs images (B, 3, H, W) of at least {LPIPS_SIDE}×{LPIPS_SIDE} pixels, "
            f"not shape {tuple(x.shape)}; compare them by PSNR."
        )
    network = _lpips_network(net).to(x.device)
    value: Tensor = network(x.float().clamp(-1, 1), truth.float().clamp(-1, 1))
    return value.flatten().to(x.dtype)


@cache
def _lpips_network(net: Backbone) -> nn.Module:
    if net not in get_args(Backbone):
        raise InputError(f"LPIPS has the backbones {get_args(Backbone)}, not {net!r}.")
    try:
        import torchvision  # noqa: F401
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "LPIPS needs torchvision, in the build that fits PyTorch: install the extra "
            f"diffsplit[eval] ({error})."
        ) from error
    try:
        with torch.inference_mode(False):
            network: nn.Module = LearnedPerceptualImagePatchSimilarity(net).net
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].rstrip(".:")
        raise InputError(
            f"LPIPS could not load the weights of its backbone ({reason}); let torchvision "
            f"download them again, or put its file into {torch.hub.get_dir()}/checkpoints."
        ) from error
    return network


def cosine_similarity(x: Tensor, truth: Tensor) -> Tensor:
    """⟨x, truth⟩ / (‖x‖ ‖truth‖): what a noiseless one-bit measurement without threshold keeps.

    Raises:
        InputError: the shapes differ.
    """
    x, truth = _pair(x, truth)
    a, b = x.flatten(1), truth.flatten(1)
    return (a * b).sum(1) / (_norm(a) * _norm(b))


def norm_error(x: Tensor, truth: Tensor) -> Tensor:
    """|‖x‖ − ‖truth‖| / ‖truth‖: how wrong the scale is, whatever the direction.

    Raises:
        InputError: the shapes differ.
    """
    x, truth = _pair(x, truth)
    norm = _norm(truth)
    return (_norm(x) - norm).abs() / norm


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt()


def _pair(x: Tensor, truth: Tensor, on_range: bool = False) -> tuple[Tensor, Tensor]:
    """Both in one dtype, at least float32, if they can be compared, and are on [-1, 1] if asked."""
    for image in (x, truth):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            raise InputError(
                f"images are compared as tensors of floats on [-1, 1], not {kind_of(image)}; "
                "convert bytes with ds.images.from_uint8, NumPy arrays with ds.images.from_numpy."
            )
    if x.shape != truth.shape or x.ndim < 2 or not x.numel():
        raise InputError(
            f"images of shape {tuple(x.shape)} cannot be compared with {tuple(truth.shape)}; "
            "give two batches (B, C, H, W) of one shape."
        )
    if x.device != truth.device:
        raise InputError(
            f"the images are on {x.device} and {truth.device}; move one of them with .to(device)."
        )
    if on_range and (peak := float(truth.detach().abs().max())) > FAR_OUTSIDE:
        raise InputError(
            f"the true image reaches ±{peak:.4g}, and images are on [-1, 1]; convert bytes with "
            "ds.images.from_uint8(x.to(torch.uint8))."
        )
    dtype = torch.promote_types(torch.promote_types(x.dtype, truth.dtype), torch.float32)
    return x.to(dtype), truth.to(dtype)
