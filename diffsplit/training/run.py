"""The state of a training run: one step of it, and its way to a checkpoint and back."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from diffsplit.errors import DivergenceError, InputError
from diffsplit.io.files import atomic_write
from diffsplit.priors.storage import first_line
from diffsplit.training.config import RunConfig
from diffsplit.training.optimizer import MatrixOptimizer
from diffsplit.training.pictures import Pictures

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Run", "fingerprint", "read_checkpoint", "seeded_weights", "started"]

C = TypeVar("C", bound=RunConfig)

LARGEST_WEIGHT = torch.finfo(torch.float16).max
"""Weights are stored in half precision; what is larger would be read back as infinity."""
STATEFUL = ("network", "ema", "optimizer")
PLAIN = ("step", "images_seen", "seconds", "history", "changes", "facts")
"""Attributes of a run that a checkpoint holds, as state dictionaries and as they are."""


def _not_resumable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be resumed from ({first_line(error)}); start afresh in another folder."
    )


def read_checkpoint(path: Path, kind: type[RunConfig]) -> dict[str, Any]:
    """What `Run.save` wrote, its tensors on the CPU, if the run has a recipe of that ``kind``."""
    if not path.is_file():
        raise InputError(
            f"{path}: no checkpoint to resume from; start the run without --resume, or give the "
            "folder of a started one."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {**state, "config": kind.from_options(state["config"]).options()}
    except Exception as error:  # a stranger's bytes may break the reader in any way
        raise _not_resumable(path, error) from error


def started(path: Path, kind: type[C]) -> C:
    """The recipe of the run that wrote a checkpoint; see `read_checkpoint`."""
    return kind.from_options(read_checkpoint(path, kind)["config"])


def fingerprint(data: Pictures) -> str:
    """Tells one set of training data from another, by a hundred of its entries."""
    some = data[:: max(1, len(data) // 100)].contiguous().cpu()
    return hashlib.sha256(f"{tuple(data.shape)}".encode() + some.numpy().tobytes()).hexdigest()[:16]


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Inside, new networks get the same weights every time; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):  # diffusers draws on the CPU, from the global one
        torch.default_generator.manual_seed(seed)
        yield


class Run(ABC):
    """Everything that a checkpoint has to bring back, whatever is trained.

    Args:
        config: the recipe.
        network: what is trained; it is moved to the device.
        data: what the run was given, images or weights, so that it is not resumed on others.
        accelerator: device and precision.

    Attributes:
        step, images_seen, seconds: how far it has come.
        history: one row a checkpoint: ``{"images", "seconds", "loss", "errors"}``.
        changes: one row a resumption with other options: ``{"images_seen", "options"}``.
        facts: what the model card should say of data and license.
        watched: what `errors` measures, for the legend of a plot.
    """

    watched: tuple[str, ...]

    def __init__(
        self, config: RunConfig, network: nn.Module, data: Pictures, accelerator: Accelerator
    ) -> None:
        from diffusers.training_utils import EMAModel

        self.config, self.accelerator = config, accelerator
        self.network = network.to(accelerator.device).requires_grad_(True)
        self.ema = EMAModel(network.parameters(), decay=config.ema, use_ema_warmup=True, power=0.75)
        self.optimizer = MatrixOptimizer(network, config.lr)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = self.images_seen = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.data = fingerprint(data)

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of the next batch."""

    @abstractmethod
    def errors(self) -> list[float]:
        """How wrong the network is on held-out images, one number for each of `watched`."""

    @abstractmethod
    def pictures(self) -> Tensor:
        """One image ``(C, H, W)`` on [-1, 1] of what the network can do."""

    @abstractmethod
    def write(self, out: Path) -> None:
        """Save what was trained, as it is now, to the folder ``out``."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold besides what every run has."""
        return {}

    def recall(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        assert not self.state()

    def update(self) -> Tensor:
        """One optimizer step; returns the loss without waiting for it."""
        with self.accelerator.autocast():
            loss = self.loss()
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step(self.config.lr_scale(self.step, self.images_seen))
        self.ema.step(self.network.parameters())
        self.step += 1
        self.images_seen += self.config.batch
        return loss.detach()

    def check_finite(self, losses: list[Tensor]) -> None:
        """Raise DivergenceError if a loss or weight is not finite, or too large for half precision.

        It is called before anything of the run is written.
        """
        weights = (*self.network.parameters(), *self.ema.shadow_params)
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
            "data": self.data,
            "generator": self.generator.get_state(),
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            **{name: getattr(self, name) for name in PLAIN},
            **self.state(),
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from the checkpoint that was read from ``path``, with the options of `config`.

        Raises:
            InputError: the options differ in more than may change, the data are others, or the
                state does not fit.
        """
        changed = self.config.changes(state["config"])
        if state.get("data") != self.data:
            raise InputError(
                f"{path}: that run was started on other data; give the same again, or start afresh "
                "in another folder (a finished prior can be the start: --init)."
            )
        try:
            for name in STATEFUL:
                getattr(self, name).load_state_dict(state[name])
            for name in PLAIN:
                setattr(self, name, type(getattr(self, name))(state[name]))
            self.generator.set_state(state["generator"])
            self.recall(state)
        except InputError:
            raise
        except Exception as error:  # see `read_checkpoint`
            raise _not_resumable(path, error) from error
        self.ema.to(self.accelerator.device)
        self.ema.decay = self.config.ema
        changed.pop("checkpoint_minutes", None)  # nothing is learned from it
        if changed:
            self.changes.append({"images_seen": self.images_seen, "options": changed})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has its averaged weights, inside the ``with`` block only."""
        parameters = list(self.network.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        try:
            yield
        finally:
            self.ema.restore(parameters)

    def card_facts(self) -> dict[str, Any]:
        """What the model card says of data and recipe."""
        return {
            **self.facts,
            "images_seen": self.images_seen,
            "training_seconds": round(self.seconds),
            "recipe": self.config.options(),
            **({"recipe_changes": self.changes} if self.changes else {}),
        }
