"""Denoising score matching (Karras et al. 2022, Table 1, with our noise levels).

    minimize  E_{x0, n, σ}  ‖D(x0 + σ n, σ) − x0‖²/c_out(σ)²

c_out is what D multiplies the output of its network by: σ σ_d/√(σ² + σ_d²) for an `EDMPrior`, and
the root of the Gaussian's error for a `ResidualPrior`.

ln σ is normal, around −0.4 with standard deviation 1.4 unless told otherwise, and one level in ten
is drawn log-uniformly over the whole range, so that every level a solver may ask for was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import DivergenceError, InputError
from diffsplit.plots import image_grid
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.priors.patched import PatchedDenoiser, build_unet
from diffsplit.priors.residual import ResidualPrior
from diffsplit.solvers.reverse import sample
from diffsplit.training.augmentation import augmented
from diffsplit.training.config import TrainConfig
from diffsplit.training.pictures import Pictures, as_floats, batches
from diffsplit.training.run import Run, seeded_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "WATCHED_SIGMAS",
    "DenoiserRun",
    "draw_sigma",
    "flipped_at_random",
    "recalled_gaussian",
    "statistics",
]

WATCHED_SIGMAS = (0.317, 0.552, 0.959, 1.668, 2.899)
"""Noise levels at which message passing usually asks the prior."""
UNIFORM_SHARE = 0.1
FITTED = 3000
"""The most images that a Gaussian under a network is fitted to: its variances are then off by 3 %,
which raises its error by less than a thousandth."""
ENTRIES = 1 << 20
"""Of the images that are denoised and sampled at each checkpoint, so that large ones are fewer."""


def draw_sigma(config: TrainConfig, n: int, generator: torch.Generator) -> Tensor:
    """``n`` training noise levels."""
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    normal = torch.randn(n, generator=generator) * config.log_sigma_std + config.log_sigma_mean
    uniform = low + (high - low) * torch.rand(n, generator=generator)
    choice = torch.rand(n, generator=generator) < UNIFORM_SHARE
    return torch.where(choice, uniform, normal).clamp(low, high).exp()


def flipped_at_random(images: Pictures, n: int, generator: torch.Generator) -> Tensor:
    """``n`` of some images in bytes ``(N, C, H, W)``, each mirrored or not, on [-1, 1]."""
    index = torch.randint(len(images), (n,), generator=generator)
    flip = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    clean = as_floats(images[index])
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


def untrained(
    config: TrainConfig,
    images: Pictures,
    init: PatchedDenoiser | None,
    gaussian: GaussianSpectrum | None,
) -> PatchedDenoiser:
    """A denoiser with random weights, or those of ``init``; see `DenoiserRun`.

    Raises:
        InputError: the images are all of one color, or do not fit the network.
    """
    inputs = 2 if config.form == "residual" else 1
    channels = images.shape[1]
    with seeded_weights(config.seed):
        unet = build_unet(
            config.size,
            config.patch,
            config.channels,
            channels,
            inputs=inputs,
            attention=config.attention,
        )
    entries = channels * config.size**2
    count = max(1, min(1000, 16 * ENTRIES // entries))
    some = as_floats(images[:: max(1, len(images) // count)])
    sigma_data, mean_square = statistics(some)
    if init is not None:
        # Attention that is new adds 0 at first, so that all else may be taken over.
        missing, unexpected = unet.load_state_dict(init.unet.state_dict(), strict=False)
        assert not unexpected
        assert all(".attentions." in name for name in missing)
        sigma_data = init.sigma_data  # the weights were made for it
    numbers: dict[str, Any] = {
        "sigma_data": sigma_data,
        "patch": config.patch,
        "sigma_min": config.sigma_min,
        "sigma_max": config.sigma_max,
        "mean_square": mean_square,
    }
    if config.form == "edm":
        return EDMPrior(unet, **numbers)
    if isinstance(init, ResidualPrior):
        gaussian = init.gaussian
    if gaussian is None:
        gaussian = GaussianSpectrum.fit(
            batches(images, 16, FITTED), sigma_min=config.sigma_min, sigma_max=config.sigma_max
        )
    return ResidualPrior(unet, gaussian, **numbers)


def recalled_gaussian(config: TrainConfig, state: dict[str, Any]) -> GaussianSpectrum | None:
    """The Gaussian that a `DenoiserRun` put into its checkpoint, if any."""
    if "gaussian" not in state:
        return None
    parts = state["gaussian"]
    return GaussianSpectrum(
        parts["variances"],
        parts["mean"],
        parts["colors"],
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
    )


class DenoiserRun(Run):
    """Training of a denoiser of images.

    Args:
        config: the recipe.
        images: training images, bytes ``(N, C, S, S)``.
        held_out: validation images, bytes.
        accelerator: device and precision.
        init: a prior of the same form and network to start from; it may lack the attention.
        gaussian: of a `ResidualPrior`, where it is known; else it is fitted to the images.
        origin: what ``images`` were computed from, if they are not data themselves.

    Attributes:
        prior: the denoiser in training.
    """

    watched = tuple(f"σ = {sigma}" for sigma in WATCHED_SIGMAS)

    def __init__(
        self,
        config: TrainConfig,
        images: Pictures,
        held_out: Tensor,
        accelerator: Accelerator,
        init: PatchedDenoiser | None = None,
        gaussian: GaussianSpectrum | None = None,
        origin: Pictures | None = None,
    ) -> None:
        self.prior = untrained(config, images, init, gaussian)
        given = images if origin is None else origin
        super().__init__(config, self.prior.unet, given, accelerator)
        self.images, self.held_out, self.recipe = images, held_out, config
        self.prior.to(accelerator.device)

    def clean(self) -> Tensor:
        """The next batch of clean images."""
        images = flipped_at_random(self.images, self.config.batch, self.generator)
        if self.recipe.augment:
            images = augmented(images, self.recipe.augment, self.generator)
        return images

    def loss(self) -> Tensor:
        device = self.accelerator.device
        clean = self.clean()
        sigma = draw_sigma(self.recipe, len(clean), self.generator)
        noise = torch.randn(clean.shape, generator=self.generator)
        return denoising_loss(self.prior, clean.to(device), sigma.to(device), noise.to(device))

    def errors(self) -> list[float]:
        return list(self.error(WATCHED_SIGMAS, self._few(64)).mse)

    def _few(self, count: int) -> int:
        """``count`` images, or fewer if they are large."""
        return max(4, min(count, ENTRIES // math.prod(self.prior.shape)))

    def error(self, sigmas: Sequence[float], limit: int | None = None) -> ErrorCurve:
        """v(σ) on the first ``limit`` validation images, or all; always with the same noise.

        Raises:
            DivergenceError: an error is not finite, or none at all.
        """
        images = as_floats(self.held_out[:limit])
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
        return image_grid(self.samples(self._few(16), 24), columns=8)

    def samples(self, count: int, steps: int, seed: int = 2) -> Tensor:
        """Unconditional samples ``(count, C, H, W)`` on [-1, 1]."""
        return sample(self.prior, count, steps, torch.Generator().manual_seed(seed))

    def write(self, out: Path) -> None:
        self.prior.facts = self.card_facts()
        self.prior.save(out)

    def state(self) -> dict[str, Any]:
        if not isinstance(self.prior, ResidualPrior):
            return {}
        gaussian = self.prior.gaussian
        parts = {name: getattr(gaussian, name) for name in ("variances", "mean", "colors")}
        return {"gaussian": parts}

    def recall(self, state: dict[str, Any]) -> None:
        gaussian = recalled_gaussian(self.recipe, state)
        if isinstance(self.prior, ResidualPrior) and gaussian is not None:
            self.prior.gaussian = gaussian.to(self.prior.device)

    def measure_curve(self) -> None:
        """Give the prior its error curve, on all validation images."""
        self.prior.curve = self.error(log_grid(self.recipe.sigma_min, self.recipe.sigma_max, 25))


def denoising_loss(prior: PatchedDenoiser, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The weighted squared error of one batch, averaged over all entries.

    Args:
        clean: images ``(B, *shape)`` on [-1, 1].
        sigma: their noise levels ``(B,)``.
        noise: standard normal, shaped like ``clean``.
    """
    error = prior.denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma) - clean
    return (error / prior.output_scale(sigma).view(-1, 1, 1, 1)).square().mean()
