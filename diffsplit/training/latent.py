"""From images to a saved latent prior: an autoencoder first, then a denoiser of its latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8
from diffsplit.metrics import psnr
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.load import load_kind
from diffsplit.training.autoencoder import AutoencoderConfig, AutoencoderRun, images_at_once
from diffsplit.training.card import latent_card
from diffsplit.training.config import TrainConfig
from diffsplit.training.denoiser import DenoiserRun
from diffsplit.training.loop import CHECKPOINT, accelerated, fit, opened
from diffsplit.training.pictures import Pictures, batches
from diffsplit.training.run import read_checkpoint, started
from diffsplit.training.train import finish, load_data

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import AutoencoderKL

__all__ = ["LATENT_CONFIG", "started_latent_config", "train_latent"]

LATENT_CONFIG = TrainConfig(size=16, patch=1, channels=(64, 96, 128))
"""The denoiser of the latents of a 64×64 image."""
LATER = "denoiser_recipe"
"""Where the first run's checkpoint keeps the recipe of the second."""


def started_latent_config(out: Path) -> tuple[AutoencoderConfig, TrainConfig]:
    """The recipes of the run in ``out``, to resume it with.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    first, second = _folders(out)
    autoencoder = started(first / CHECKPOINT, AutoencoderConfig)
    if (second / CHECKPOINT).is_file():
        return autoencoder, started(second / CHECKPOINT, TrainConfig)
    state = read_checkpoint(first / CHECKPOINT, AutoencoderConfig)
    return autoencoder, TrainConfig.from_options(state["facts"][LATER])


def _folders(out: Path) -> tuple[Path, Path]:
    return out / "training" / "autoencoder", out / "training" / "denoiser"


class LatentDenoiserRun(DenoiserRun):
    """Training of the denoiser of latents ``(N, C, H, W)``, mirror images among them.

    Args:
        latents, held_out: scaled, for training and validation.
        moments: their scaling and shift.
        images: that the latents are of.
    """

    def __init__(
        self,
        config: TrainConfig,
        latents: Tensor,
        held_out: Tensor,
        accelerator: Accelerator,
        autoencoder: AutoencoderKL,
        moments: tuple[float, float],
        images: Pictures,
    ) -> None:
        super().__init__(config, latents, held_out, accelerator, origin=images)
        self.prior.bounds = None  # latents have none
        self.autoencoder, self.moments = autoencoder, moments

    @property
    def whole(self) -> LatentPrior:
        """The prior of images, with what its model card says."""
        facts = self.card_facts()
        return LatentPrior.from_models(self.autoencoder, self.prior, *self.moments, facts)

    def clean(self) -> Tensor:
        index = torch.randint(len(self.images), (self.config.batch,), generator=self.generator)
        return self.images[index]

    @torch.no_grad()
    def samples(self, count: int, steps: int, seed: int = 2) -> Tensor:
        whole = self.whole
        return whole.clip(whole.decode(super().samples(count, steps, seed)))

    def write(self, out: Path) -> None:
        self.whole.save(out)


def _check_form(config: TrainConfig) -> None:
    if config.form == "gaussian":
        raise InputError("form gaussian: a denoiser of latents is of the form edm or residual.")
    if config.augment:
        raise InputError("images are augmented, and latents are not; leave out augment.")


def _check_size(autoencoder: AutoencoderConfig, config: TrainConfig) -> None:
    """Raise InputError unless both networks can halve the image."""
    factor = autoencoder.factor * config.patch * 2 ** (len(config.channels) - 1)
    if autoencoder.size % factor:
        raise InputError(
            f"size {autoencoder.size} is not divisible by {factor}, as an autoencoder and a "
            "denoiser of its latents need it; choose another size."
        )


def _autoencoder_of(init: Path | str) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    prior = load_kind(LatentPrior, init)
    if not isinstance(prior.autoencoder, AutoencoderKL):
        raise InputError(f"{init}: has no KL autoencoder to start from; leave out --init.")
    return prior.autoencoder


@torch.no_grad()
def _encoded(run: AutoencoderRun, images: Pictures, mirrored: bool = False) -> Tensor:
    """Unscaled latents of images in bytes, or of their mirror images, on the CPU."""
    accelerator, parts = run.accelerator, batches(images, images_at_once(images.shape))
    inputs = ((x.flip(3) if mirrored else x).to(accelerator.device) for x in parts)
    with accelerator.autocast():
        codes = [run.model.encode(x).latent_dist.mode().float().cpu() for x in inputs]
    return torch.cat(codes)


def train_latent(
    source: Path,
    out: Path,
    autoencoder: AutoencoderConfig,
    config: TrainConfig,
    *,
    resume: bool = False,
    init: Path | str | None = None,
    validation: Path | None = None,
    facts: dict[str, Any] | None = None,
    cpu: bool = False,
) -> LatentPrior:
    """Train an autoencoder and a denoiser of its latents, and save both to ``out``.

    ``out`` gets the prior (see `LatentPrior.save`), a model card and, in ``training/``, for both
    runs a checkpoint, the loss curve and pictures.

    Args:
        autoencoder: its recipe.
        config: the denoiser's recipe; its ``size`` is that of the latents.
        init: name or folder of a latent prior whose autoencoder to start from, of images of any
            size; the widths are then that one's, whatever its recipe says, and
            ``latent_channels`` as many as that one has or fewer.
        source, out, resume, validation, facts, cpu: see `train`.

    Raises:
        InputError, DivergenceError, MissingDependencyError: see `train`.
    """
    first, second = _folders(out)
    accelerator = accelerated(cpu)
    state = opened(out, first / CHECKPOINT, autoencoder, resume)
    changed = autoencoder.changes(state["config"]) if state else {}
    start = None
    if init is not None and state is None:
        start = _autoencoder_of(init)
        autoencoder = replace(autoencoder, channels=tuple(start.config.block_out_channels))
    _check_form(config)
    _check_size(autoencoder, config)
    config = replace(config, size=autoencoder.size // autoencoder.factor)
    begun = resume and (second / CHECKPOINT).is_file()
    if begun and set(changed) - {"checkpoint_minutes"}:
        raise InputError(
            f"{out}: the denoiser has learned the latents of this autoencoder already; leave out "
            "--autoencoder-images, or start afresh in another folder."
        )
    images, held_out = load_data(source, replace(config, size=autoencoder.size), validation)

    coder = AutoencoderRun(autoencoder, images, held_out, accelerator, start)
    if start is not None:
        coder.facts |= {"autoencoder_started_from": Path(str(init)).name}
    fit(coder, out, first, "autoencoder", state, {**(facts or {}), LATER: config.options()})
    kept = psnr(coder.reconstruct(held_out), from_uint8(held_out)).mean().item()

    latents = torch.cat([_encoded(coder, images, mirrored) for mirrored in (False, True)])
    shift, scaling = latents.mean().item(), 1 / latents.std().item()
    latents = scaling * (latents - shift)
    held_out = scaling * (_encoded(coder, held_out) - shift)
    moments = scaling, shift
    run = LatentDenoiserRun(config, latents, held_out, accelerator, coder.model, moments, images)
    run.facts |= {
        **{key: value for key, value in coder.facts.items() if key != LATER},
        "trained_on": source.name,
        "training_images": len(images),
        "autoencoder_images_seen": coder.images_seen,
        "autoencoder_training_seconds": round(coder.seconds),
        "autoencoder_recipe": autoencoder.options(),
    }
    state = read_checkpoint(second / CHECKPOINT, TrainConfig) if begun else None
    fit(run, out, second, "denoiser", state, facts)
    finish(run, out, images, lambda distances: latent_card(run.whole, distances, kept))
    return LatentPrior.load(out)
