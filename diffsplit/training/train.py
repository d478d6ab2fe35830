"""Denoising score matching for an `EDMPrior` (Karras et al. 2022, Table 1, with our noise levels).

    minimise  E_{x0, n, σ}  (σ² + σ_d²)/(σ σ_d)² · ‖D(x0 + σ n, σ) − x0‖²

ln σ is normal, around −0.4 with standard deviation 1.4 unless told otherwise, and one level in ten
is drawn log-uniformly over the whole range, so that every level a solver may ask for was seen.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.images import atomic_write, from_uint8, load_images
from diffsplit.priors.edm import EDMPrior, build_unet
from diffsplit.priors.error_curve import log_grid, measure_error
from diffsplit.training.optimizer import MatrixOptimizer
from diffsplit.training.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainConfig", "train"]

CHECKPOINT = "checkpoint.pt"
UNIFORM_SHARE = 0.1
WARMUP_STEPS = 100
UNREADABLE = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)


@dataclass(frozen=True)
class TrainConfig:
    """What a training run is made of.

    Attributes:
        size: side of the training images in pixels.
        images: length of the run, in training images seen (not steps).
        batch: images per step; small batches make the most of few images.
        lr: peak learning rate; linear warm-up, then flat, then linear to zero over the last
            ``cooldown`` of the run.
        ema: decay of the averaged weights, reached gradually.
        channels, patch: the network, see `build_unet`.
        sigma_min, sigma_max: range of noise levels.
        log_sigma_mean, log_sigma_std: where in it the run dwells.
        validation: share of the images, at most 256, kept out to measure the error.
        checkpoint_minutes: the most that a killed run loses.
        seed: of the initial weights, the order of the images, and the noise.
    """

    size: int = 64
    images: int = 400_000
    batch: int = 32
    lr: float = 4e-3
    cooldown: float = 0.4
    ema: float = 0.999
    channels: tuple[int, ...] = (64, 96, 128)
    patch: int = 2
    sigma_min: float = 0.01
    sigma_max: float = 160.0
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.4
    validation: float = 0.02
    checkpoint_minutes: float = 3.0
    seed: int = 0

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate at a step."""
        left = 1 - step * self.batch / self.images
        return min(1.0, (step + 1) / WARMUP_STEPS, max(left, 0.0) / self.cooldown)


def draw_sigma(config: TrainConfig, n: int, generator: torch.Generator) -> Tensor:
    """``n`` training noise levels."""
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    normal = torch.randn(n, generator=generator) * config.log_sigma_std + config.log_sigma_mean
    uniform = low + (high - low) * torch.rand(n, generator=generator)
    choice = torch.rand(n, generator=generator) < UNIFORM_SHARE
    return torch.where(choice, uniform, normal).clamp(low, high).exp()


def denoising_loss(prior: EDMPrior, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The weighted squared error of one batch, averaged over all entries."""
    sd = prior.sigma_data
    weight = (sigma.square() + sd**2) / (sigma * sd).square()
    error = prior.denoise(clean + sigma.view(-1, 1, 1, 1) * noise, sigma) - clean
    return (weight.view(-1, 1, 1, 1) * error.square()).mean()


class _Run:
    """Everything that a checkpoint has to bring back."""

    def __init__(self, config: TrainConfig, train: Tensor, accelerator: Accelerator) -> None:
        from diffusers.training_utils import EMAModel

        self.config, self.accelerator = config, accelerator
        torch.manual_seed(config.seed)  # diffusers draws initial weights from the global generator
        self.unet = build_unet(config.size, config.patch, config.channels)
        self.unet.to(accelerator.device)
        self.ema = EMAModel(
            self.unet.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75
        )
        self.optimizer = MatrixOptimizer(self.unet, config.lr)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        sample = from_uint8(train[:: max(1, len(train) // 1000)])
        self.prior = EDMPrior(
            self.unet,
            sigma_data=round(sample.std().item(), 4),
            patch=config.patch,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            mean_square=round(sample.square().mean().item(), 5),
        )

    def update(self, train: Tensor) -> Tensor:
        """One optimizer step; returns the loss without waiting for it."""
        config, generator, device = self.config, self.generator, self.accelerator.device
        index = torch.randint(len(train), (config.batch,), generator=generator)
        flip = torch.rand(config.batch, 1, 1, 1, generator=generator) < 0.5
        clean = from_uint8(train[index])
        clean = torch.where(flip, clean.flip(3), clean)
        sigma = draw_sigma(config, config.batch, generator)
        noise = torch.randn(clean.shape, generator=generator)
        with self.accelerator.autocast():
            loss = denoising_loss(self.prior, clean.to(device), sigma.to(device), noise.to(device))
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step(config.lr_scale(self.step))
        self.ema.step(self.unet.parameters())
        self.step += 1
        return loss.detach()

    def save(self, path: Path, history: list[dict[str, Any]]) -> None:
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": history,
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> list[dict[str, Any]]:
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self.unet.load_state_dict(state["unet"])
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.step = int(state["step"])
            return list(state["history"])
        except (*UNREADABLE, KeyError, ValueError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path}: cannot be resumed from ({reason}); give the options that the run was "
                "started with, or start afresh in another folder."
            ) from error

    @contextmanager
    def averaged(self) -> Iterator[EDMPrior]:
        """The prior with its averaged weights, inside the ``with`` block only."""
        parameters = list(self.unet.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        try:
            yield self.prior
        finally:
            self.ema.restore(parameters)


def _split(images: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Training and validation images; the latter a block at the end, since neighbours are alike."""
    held_out = min(256, max(1, round(len(images) * config.validation)))
    if len(images) - held_out < config.batch:
        raise InputError(
            f"{len(images)} images are too few for batches of {config.batch}; "
            "give more images or a smaller --batch."
        )
    return images[:-held_out], images[-held_out:]


def train(
    source: Path,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    validation: Path | None = None,
    facts: dict[str, Any] | None = None,
    cpu: bool = False,
) -> EDMPrior:
    """Train a denoiser on a folder or zip of images and save it to ``out``.

    ``out`` gets the prior (see `EDMPrior.save`), a model card ``README.md``, and in ``training/``
    a checkpoint, the loss curve and grids of samples.

    Args:
        source: folder or zip of images; each is cropped to a square and resized.
        resume: go on from the checkpoint in ``out``; ``config.images`` may have grown.
        validation: images to measure the error on; without it the last ones of ``source``.
        facts: what the model card should say of data and licence.
        cpu: stay on the CPU even where there is a GPU.

    Raises:
        InputError: unreadable or too few images, or a checkpoint that does not fit.
        MissingDependencyError: the extra ``train`` is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError(
            "training needs accelerate and matplotlib: pip install 'diffsplit[train]'"
        ) from error
    images = load_images(source, config.size)
    if validation is None:
        images, held_out = _split(images, config)
    else:
        held_out = load_images(validation, config.size, limit=256)
    logs = out / "training"
    checkpoint = logs / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise InputError(f"{out}: holds a started run; add --resume or choose another folder.")
    logs.mkdir(parents=True, exist_ok=True)

    run = _Run(config, images, Accelerator(mixed_precision="bf16", cpu=cpu))
    history = run.load(checkpoint) if checkpoint.exists() else []
    steps = math.ceil(config.images / config.batch)
    seconds = history[-1]["seconds"] if history else 0.0

    def describe() -> dict[str, Any]:
        return {
            **(facts or {}),
            "trained_on": source.name,
            "training_images": len(images),
            "images_seen": run.step * config.batch,
            "training_seconds": round(seconds),
            "recipe": json.loads(json.dumps(asdict(config))),
        }

    with Reporter(logs, config.batch, config.images, held_out) as report:
        mark = saved = time.monotonic()
        while run.step < steps:
            report.advance(run.update(images), run.step)
            now = time.monotonic()
            seconds, mark = seconds + now - mark, now
            if now - saved > 60 * config.checkpoint_minutes or run.step == steps:
                with run.averaged() as prior:
                    history.append(report.checkpoint(prior, run.step, seconds, history))
                    prior.facts = describe()
                    prior.save(out)
                run.save(checkpoint, history)
                mark = saved = time.monotonic()
        with run.averaged() as prior:
            prior.facts = describe()
            prior.curve = measure_error(
                prior,
                from_uint8(held_out).to(prior.device),
                log_grid(config.sigma_min, config.sigma_max, 25),
                torch.Generator().manual_seed(1),
            )
            prior.save(out)
            report.finish(prior, out, images)
    return EDMPrior.load(out)
