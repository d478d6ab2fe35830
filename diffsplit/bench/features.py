"""What FID needs of each image is kept beside its pictures, and becomes a number of all of them.

A store keeps bytes ``(C, H, W)``; features are kept as the bytes of their float32 numbers, ``(1, 1,
4 n)``. The reference is the set of the true images of the same entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsplit.fid import FEATURES, frechet_distance, inception_features

__all__ = ["FEWEST", "features_of", "fid_of"]

FEWEST = 50
"""Images below which an FID says more about their number than about the methods."""
_ANSWER, _TRUTH = "features", "features of the truth"


def features_of(image: Tensor, truth: Tensor) -> list[dict[str, NDArray[np.uint8]]]:
    """The features of each recovered and each true image ``(B, 3, H, W)`` on [-1, 1], to keep."""
    found = {_ANSWER: inception_features(image), _TRUTH: inception_features(truth)}
    numbers = {name: values.cpu().contiguous().numpy() for name, values in found.items()}
    return [
        {name: values[i].view(np.uint8).reshape(1, 1, -1) for name, values in numbers.items()}
        for i in range(len(image))
    ]


def fid_of(kept: Sequence[Mapping[str, Tensor]]) -> tuple[float | None, int, str]:
    """FID of the images of a cell, of how many it is, and what a reader has to know of it.

    Args:
        kept: what the store keeps of each image. Those without features are left out.

    Returns:
        None without features or with fewer images than `FEWEST`; the number of images; a
        sentence, or "".
    """
    pairs = [(one[_ANSWER], one[_TRUTH]) for one in kept if _ANSWER in one and _TRUTH in one]
    count = len(pairs)
    if not pairs:
        return None, 0, ""
    if count < FEWEST:
        return None, count, f"No FID: it needs at least {FEWEST} images, and there are {count}."
    ours, theirs = (torch.stack([_numbers(x) for x in side]) for side in zip(*pairs, strict=True))
    note = ""
    if count < FEATURES:
        note = (
            f"FID of {count} images: with fewer than {FEATURES} it is too large, the more so the "
            "fewer there are; compare it with values for as many images only."
        )
    return float(frechet_distance(ours, theirs)), count, note


def _numbers(kept: Tensor) -> Tensor:
    """The features ``(n,)`` that were kept as bytes."""
    return torch.from_numpy(kept.contiguous().numpy().reshape(-1).view(np.float32).copy())
