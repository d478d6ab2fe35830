"""A prior without a network: the Gaussian of the training images, in one pass over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsplit.io.files import atomic_write
from diffsplit.io.images import from_uint8, save_image
from diffsplit.plots import image_grid
from diffsplit.priors.error_curve import log_grid, measure_error
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.training.card import gaussian_card
from diffsplit.training.config import TrainConfig
from diffsplit.training.pictures import Pictures, batches

__all__ = ["fit_gaussian"]


def fit_gaussian(
    images: Pictures,
    held_out: Tensor,
    out: Path,
    config: TrainConfig,
    name: str,
    facts: dict[str, Any] | None = None,
) -> GaussianSpectrum:
    """Fit a Gaussian, save it to ``out``, and write its model card and samples.

    Args:
        images, held_out: bytes ``(N, 3, S, S)``, for the fit and to measure the error on.
        config: of it, only the noise levels matter.
        name: what the images are called.
        facts: what the model card should say of data and license.

    Raises:
        InputError: fewer than two images, or all alike.
    """
    known = {"trained_on": name, "training_images": len(images), **(facts or {})}
    levels = {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max}
    prior = GaussianSpectrum.fit(batches(images, 16), facts=known, **levels)
    prior.save(out)
    prior = GaussianSpectrum.load(out)
    grid = log_grid(prior.sigma_min, prior.sigma_max, 25)
    generator = torch.Generator().manual_seed(1)
    measured = measure_error(prior, from_uint8(held_out), grid, generator, batch=16)
    draws = prior.sample(8, torch.Generator().manual_seed(3)).clamp(-1, 1)
    save_image(image_grid(draws, columns=8), out / "samples.png")
    with atomic_write(out / "README.md") as temporary:
        temporary.write_text(gaussian_card(prior, measured), "utf-8")
    return prior
