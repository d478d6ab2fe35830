"""The training images nearest to some pictures: are they copies?"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.io.images import from_uint8

__all__ = ["nearest_images"]

CHUNK = 1000
"""Training images that are compared with the pictures at once, as floats."""


def nearest_images(pictures: Tensor, train: Tensor) -> tuple[Tensor, list[float]]:
    """The training images nearest to some pictures, mirror images included.

    Args:
        pictures: ``(n, C, H, W)`` on [-1, 1].
        train: bytes ``(N, C, H, W)``.

    Returns:
        The nearest images ``(n, C, H, W)`` on [-1, 1] and their root-mean-square distances.
    """
    both = torch.cat([pictures, pictures.flip(-1)]).cpu().flatten(1)
    best = torch.full((len(both),), torch.inf)
    index = torch.zeros(len(both), dtype=torch.long)
    for start in range(0, len(train), CHUNK):
        candidates = from_uint8(train[start : start + CHUNK]).flatten(1)
        distance, place = (torch.cdist(both, candidates) / both.shape[1] ** 0.5).min(1)
        index = torch.where(distance < best, start + place, index)
        best = torch.minimum(best, distance)
    found = from_uint8(train[index])
    n = len(pictures)
    mirrored = best[n:] < best[:n]
    nearest = torch.where(mirrored.view(-1, 1, 1, 1), found[n:].flip(-1), found[:n])
    return nearest, torch.minimum(best[:n], best[n:]).tolist()
