"""The state of a training run: one step of it, and its way to a checkpoint and back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import DivergenceError, InputError
from diffsplit.files import atomic_write
from diffsplit.images import from_uint8
from diffsplit.priors.edm import EDMPrior, build_unet
from diffsplit.training.config import TrainConfig
from diffsplit.training.objective import denoising_loss, draw_sigma
from diffsplit.training.optimizer import MatrixOptimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Run", "read_checkpoint"]

LARGEST_WEIGHT = torch.finfo(torch.float16).max
"""Weights are stored in half precision; what is larger would be read back as infinity."""
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


def _not_resumable(path: Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(f"{path}: cannot be resumed from ({reason}); start afresh in another folder.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `Run.save` wrote, its tensors on the CPU.

    Raises:
        InputError: no such file, or it is not a checkpoint.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no checkpoint to resume from; start the run without --resume, or give the "
            "folder of a started one."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {**state, "config": TrainConfig.from_options(state["config"]).options()}
    except UNREADABLE as error:
        raise _not_resumable(path, error) from error


class Run:
    """Everything that a checkpoint has to bring back.

    Args:
        config: the recipe.
        train: bytes ``(N, 3, H, W)``, for the statistics of their entries.
        accelerator: device and precision.

    Attributes:
        prior: the denoiser in training; see `averaged` for the one to use.
        step, images_seen, seconds: how far it has come.
        history: one row a checkpoint, see `Reporter.measure`.
        changes: one row a resumption with other options: ``{"images_seen", "options"}``.
        facts: what the model card should say of data and license.
    """

    def __init__(self, config: TrainConfig, train: Tensor, accelerator: Accelerator) -> None:
        from diffusers.training_utils import EMAModel

        self.config, self.accelerator = config, accelerator
        # diffusers draws the initial weights, on the CPU, from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.unet = build_unet(config.size, config.patch, config.channels)
        self.unet.to(accelerator.device)
        self.ema = EMAModel(
            self.unet.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75
        )
        self.optimizer = MatrixOptimizer(self.unet, config.lr)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = self.images_seen = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        sample = from_uint8(train[:: max(1, len(train) // 1000)])
        sigma_data = round(sample.std().item(), 4)
        if sigma_data == 0:
            raise InputError("the training images are all of one color; give other images.")
        self.prior = EDMPrior(
            self.unet,
            sigma_data=sigma_data,
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
        self.optimizer.step(config.lr_scale(self.step, self.images_seen))
        self.ema.step(self.unet.parameters())
        self.step += 1
        self.images_seen += config.batch
        return loss.detach()

    def check_finite(self, losses: list[Tensor]) -> None:
        """Refuse a diverged run before anything of it is written.

        Raises:
            DivergenceError: a loss or weight is not finite, or too large for half precision.
        """
        weights = (*self.unet.parameters(), *self.ema.shadow_params)
        # A comparison with NaN is false, so this finds it too.
        sound = all(bool(w.detach().abs().amax() <= LARGEST_WEIGHT) for w in weights)
        if not sound or not all(bool(loss.isfinite()) for loss in losses):
            raise DivergenceError(
                f"training diverged within {self.images_seen} images (learning rate "
                f"{self.config.lr:g}): a loss or weight left the finite numbers; resume from the "
                "last checkpoint, if there is one, with a smaller learning rate, or start afresh."
            )

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {
            "config": self.config.options(),
            "sigma_data": self.prior.sigma_data,
            "mean_square": self.prior.mean_square,
            "step": self.step,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "changes": self.changes,
            "facts": self.facts,
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint, with the options of `config`.

        Args:
            state: from `read_checkpoint`.
            path: where it was read, for messages.

        Raises:
            InputError: the options differ in more than may change, or the state does not fit.
        """
        changed = self.config.changes(state["config"])
        try:
            self.unet.load_state_dict(state["unet"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.prior.sigma_data = float(state["sigma_data"])
            self.prior.mean_square = float(state["mean_square"])
            self.step = int(state["step"])
            self.images_seen = int(state["images_seen"])
            self.seconds = float(state["seconds"])
            self.history = list(state["history"])
            self.changes = list(state["changes"])
            self.facts = dict(state["facts"])
        except UNREADABLE as error:
            raise _not_resumable(path, error) from error
        self.ema.to(self.accelerator.device)
        self.ema.decay = self.config.ema
        changed.pop("checkpoint_minutes", None)  # nothing is learned from it
        if changed:
            self.changes.append({"images_seen": self.images_seen, "options": changed})

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
