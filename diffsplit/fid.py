"""Fréchet inception distance: how different two sets of images are, not image by image.

FID = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)

with mean and covariance of the 2048 features that an Inception network finds in the images of
each set (Heusel et al. 2017). Let X be the centered features of a set, (n, 2048), divided by
√(n − 1), so that Σ = XᵀX. The eigenvalues of Σ₁ Σ₂ other than 0 are the squared singular values of
X₁ X₂ᵀ: the trace of the root is the sum of these, and no 2048×2048 matrix has to be decomposed.
"""

from __future__ import annotations

import pickle
from functools import cache

import torch
from torch import Tensor, nn

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.images import to_uint8

__all__ = ["FEATURES", "fid", "frechet_distance", "inception_features"]

FEATURES = 2048
"""Of an image. With fewer images than this the covariance is singular, and FID too large."""


def fid(x: Tensor, truth: Tensor) -> Tensor:
    """Fréchet inception distance of two sets of images; smaller is better, 0 for equal sets.

    It depends on the number of images: compare values for as many images only.

    Args:
        x, truth: ``(B, 3, H, W)`` on [-1, 1], at least two images each; clipped to [-1, 1].

    Returns:
        A scalar in float64.

    Raises:
        InputError: as `inception_features` and `frechet_distance` do.
        MissingDependencyError: torch-fidelity is not installed.
    """
    return frechet_distance(inception_features(x), inception_features(truth))


def inception_features(x: Tensor) -> Tensor:
    """What the network of FID finds in images, as torchmetrics and torch-fidelity compute it.

    The weights are those of the original TensorFlow network, which torch-fidelity downloads once.

    Args:
        x: ``(B, 3, H, W)`` on [-1, 1]; clipped to [-1, 1] and rounded to bytes.

    Returns:
        ``(B, 2048)`` in float32.

    Raises:
        InputError: these are no RGB images, or the weights are neither there nor to be had.
        MissingDependencyError: torch-fidelity is not installed.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise InputError(f"FID needs images (B, 3, H, W), not shape {tuple(x.shape)}.")
    network = _inception().to(x.device)
    with torch.no_grad():
        features: Tensor = network(to_uint8(x.clamp(-1, 1)))
    return features.float()


def frechet_distance(first: Tensor, second: Tensor) -> Tensor:
    """The Fréchet distance of two Gaussians with the mean and covariance of two sets of vectors.

    Args:
        first, second: ``(n, d)`` and ``(m, d)`` with at least two vectors each.

    Returns:
        A scalar in float64.

    Raises:
        InputError: there are too few vectors, or their lengths differ.
    """
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise InputError(
            "a Fréchet distance needs two sets of at least two vectors of one length, not "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    means = [vectors.double().mean(0) for vectors in (first, second)]
    a, b = (
        (vectors.double() - mean) / (len(vectors) - 1) ** 0.5
        for vectors, mean in zip((first, second), means, strict=True)
    )
    cross = torch.linalg.svdvals(a @ b.T).sum()
    distance = (means[0] - means[1]).square().sum()
    value: Tensor = distance + a.square().sum() + b.square().sum() - 2 * cross
    return value


@cache
def _inception() -> nn.Module:
    try:
        import torch_fidelity  # noqa: F401
        from torchmetrics.image.fid import FrechetInceptionDistance
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            "FID needs torch-fidelity and torchvision: install the extra diffsplit[eval] "
            f"({error})."
        ) from error
    try:
        network: nn.Module = FrechetInceptionDistance(FEATURES).inception
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].rstrip(".:")
        raise InputError(
            f"FID could not load the weights of its network ({reason}); let torch-fidelity "
            f"download them again, or put its file into {torch.hub.get_dir()}/checkpoints."
        ) from error
    return network
