"""Denoising score matching for an `EDMPrior` (Karras et al. 2022, Table 1, with our noise levels).

    minimize  E_{x0, n, σ}  (σ² + σ_d²)/(σ σ_d)² · ‖D(x0 + σ n, σ) − x0‖²

ln σ is normal, around −0.4 with standard deviation 1.4 unless told otherwise, and one level in ten
is drawn log-uniformly over the whole range, so that every level a solver may ask for was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsplit.errors import DivergenceError, InputError
from diffsplit.io.images import from_uint8
from diffsplit.plots import image_grid
from diffsplit.priors.edm import EDMPrior, build_unet
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error
from diffsplit.solvers.reverse import sample
from diffsplit.training.config import TrainConfig
from diffsplit.training.run import Run, seeded_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["WATCHED_SIGMAS", "DenoiserRun", "draw_sigma", "flipped_at_random", "statistics"]

WATCHED_SIGMAS = (0.317, 0.552, 0.959, 1.668, 2.899)
"""Noise levels at which message passing usually asks the prior."""
UNIFORM_SHARE = 0.1


def draw_sigma(config: TrainConfig, n: int, generator: torch.Generator) -> Tensor:
    """``n`` training noise levels."""
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    normal = torch.randn(n, generator=generator) * config.log_sigma_std + config.log_sigma_mean
    uniform = low + (high - low) * torch.rand(n, generator=generator)
    choice = torch.rand(n, generator=generator) < UNIFORM_SHARE
    return torch.where(choice, uniform, normal).clamp(low, high).exp()


def flipped_at_random(images: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """``n`` of some images in bytes ``(N, C, H, W)``, each mirrored or not, on [-1, 1]."""
    index = torch.randint(len(images), (n,), generator=generator)
    flip = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    clean = from_uint8(images[index])
    return torch.where(flip, clean.flip(3), clean)


def statistics(data: Tensor) -> tuple[float, float]:
    """σ_d and E[x0²] per entry of training data on [-1, 1].

    Raises:
        InputError: all entries are the same.
    """
    sigma_data = round(data.std().item(), 4)
    if sigma_data == 0:
        raise InputError("the training images are all of one color; give other images.")
    return sigma_data, round(data.square().mean().item(), 5)


class DenoiserRun(Run):
    """Training of a denoiser of images.

    Args:
        config: the recipe.
        images: training images, bytes ``(N, C, S, S)``.
        held_out: validation images, bytes.
        accelerator: device and precision.
        init: a prior of the same network to start from.
        origin: what ``images`` were computed from, if they are not data themselves.

    Attributes:
        prior: the denoiser in training.
    """

    watched = tuple(f"σ = {sigma}" for sigma in WATCHED_SIGMAS)

    def __init__(
        self,
        config: TrainConfig,
        images: Tensor,
        held_out: Tensor,
        accelerator: Accelerator,
        init: EDMPrior | None = None,
        origin: Tensor | None = None,
    ) -> None:
        with seeded_weights(config.seed):
            unet = build_unet(config.size, config.patch, config.channels, images.shape[1])
        some = images[:: max(1, len(images) // 1000)]
        sigma_data, mean_square = statistics(_floats(some))
        if init is not None:
            unet.load_state_dict(init.unet.state_dict())
            sigma_data = init.sigma_data  # the weights were made for it
        super().__init__(config, unet, images if origin is None else origin, accelerator)
        self.images, self.held_out, self.recipe = images, held_out, config
        self.prior = EDMPrior(
            unet,
            sigma_data=sigma_data,
            patch=config.patch,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            mean_square=mean_square,
        )

    def clean(self) -> Tensor:
        """The next batch of clean images."""
        return flipped_at_random(self.images, self.config.batch, self.generator)

    def loss(self) -> Tensor:
        device = self.accelerator.device
        clean = self.clean()
        sigma = draw_sigma(self.recipe, len(clean), self.generator)
        noise = torch.randn(clean.shape, generator=self.generator)
        return denoising_loss(self.prior, clean.to(device), sigma.to(device), noise.to(device))

    def errors(self) -> list[float]:
        return list(self.error(WATCHED_SIGMAS, 64).mse)

    def error(self, sigmas: Sequence[float], limit: int | None = None) -> ErrorCurve:
        """v(σ) on the first ``limit`` validation images, or all; always with the same noise.

        Raises:
            DivergenceError: an error is not finite, or none at all.
        """
        images = _floats(self.held_out[:limit])
        generator = torch.Generator().manual_seed(1)
        try:
            return measure_error(self.prior, images.to(self.prior.device), sigmas, generator)
        except InputError as error:
            raise DivergenceError(
                "the denoiser's error on the validation images is not positive and finite at "
                f"every noise level from {min(sigmas):.3g} to {max(sigmas):.3g}; train with a "
                "smaller learning rate, or give other validation images."
            ) from error

    def pictures(self) -> Tensor:
        return image_grid(self.samples(16, 24), columns=8)

    def samples(self, count: int, steps: int, seed: int = 2) -> Tensor:
        """Unconditional samples ``(count, C, H, W)`` on [-1, 1]."""
        return sample(self.prior, count, steps, torch.Generator().manual_seed(seed))

    def write(self, out: Path) -> None:
        self.prior.facts = self.card_facts()
        self.prior.save(out)

    def measure_curve(self) -> None:
        """Give the prior its error curve, on all validation images."""
        self.prior.curve = self.error(log_grid(self.recipe.sigma_min, self.recipe.sigma_max, 25))


def denoising_loss(prior: EDMPrior, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The weighted squared error of one batch, averaged over all entries.

    Args:
        clean: images ``(B, *shape)`` on [-1, 1].
        sigma: their noise levels ``(B,)``.
        noise: standard normal, shaped like ``clean``.
    """
    sd = prior.sigma_data
    weight = (sigma.square() + sd**2) / (sigma * sd).square()
    error = prior.denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma) - clean
    return (weight.view(-1, 1, 1, 1) * error.square()).mean()


def _floats(data: Tensor) -> Tensor:
    return from_uint8(data) if data.dtype == torch.uint8 else data
