"""The recipe of a training run, and which parts of it may change when the run is resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from diffsplit.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMS", "RunConfig", "TrainConfig", "multiples_of_16"]

WARMUP_STEPS = 100
FORMS = ("edm", "residual", "gaussian")
"""What a denoiser may be: an `EDMPrior`, a `ResidualPrior` or a `GaussianSpectrum`."""
KINDS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    int: ("an integer", lambda value: type(value) is int),
    float: ("a number", lambda value: type(value) in (int, float)),
    str: ("a word", lambda value: type(value) is str),
    tuple: (
        "a tuple of integers",
        lambda value: type(value) is tuple and {*map(type, value)} <= {int},
    ),
}
"""Of options, by the type of their defaults."""


def multiples_of_16(channels: tuple[int, ...]) -> tuple[bool, str]:
    """The rule for the widths of a network, which normalizes groups of 16 channels."""
    holds = bool(channels) and all(c >= 16 and c % 16 == 0 for c in channels)
    return holds, "one or more multiples of 16"


@dataclass(frozen=True)
class RunConfig:
    """What every training run is made of.

    Attributes:
        images: length of the run, in training images seen (not steps).
        batch: images per step; small batches make the most of few images.
        lr: peak learning rate; linear warm-up, then flat, then linear to zero over the last
            ``cooldown`` of the run.
        ema: decay of the averaged weights, reached gradually.
        validation: share of the images, at most 256, kept out to measure the error.
        checkpoint_minutes: the most that a killed run loses.
        seed: of the initial weights, the order of the images, and the noise.

    Raises:
        InputError: an option is out of its range.
    """

    images: int = 400_000
    batch: int = 24
    lr: float = 3e-3
    cooldown: float = 0.4
    ema: float = 0.9995
    validation: float = 0.02
    checkpoint_minutes: float = 3.0
    seed: int = 0

    CHANGEABLE: ClassVar[frozenset[str]] = frozenset(
        {"images", "lr", "cooldown", "ema", "checkpoint_minutes"}
    )
    """Options that a resumed run may change: how long, how fast and at which levels it learns.

    The others say what is learned: the network, its noise levels, the batches, which images are
    held out. Another value of those makes another run; held-out images would even be trained on.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            wanted, is_kind = KINDS[type(field.default)]
            if not is_kind(value := getattr(self, field.name)):
                raise InputError(f"{field.name} is {value!r:.40}; it must be {wanted}.")
        for name, (holds, wanted) in self._rules().items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {wanted}.")

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """For each option whether it is in its range, and that range in words."""
        return {
            "images": (self.images >= 1, "1 or more"),
            "batch": (self.batch >= 1, "1 or more"),
            "lr": (0 < self.lr < math.inf, "positive and finite"),
            "cooldown": (0 < self.cooldown <= 1, "above 0 and at most 1"),
            "ema": (0 <= self.ema < 1, "at least 0 and below 1"),
            "validation": (0 < self.validation < 1, "between 0 and 1"),
            "checkpoint_minutes": (self.checkpoint_minutes >= 0, "0 or more"),
        }

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """The inverse of `options`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in options.items()
        }
        return cls(**values)

    def options(self) -> dict[str, Any]:
        """Every option, as JSON keeps it."""
        return dict(json.loads(json.dumps(asdict(self))))

    def changes(self, started: dict[str, Any]) -> dict[str, list[Any]]:
        """What differs from the options of an earlier run: ``{name: [before, now]}``.

        Args:
            started: `options` of the run that is to be resumed.

        Raises:
            InputError: an option differs that is not `CHANGEABLE`.
        """
        changed = {
            name: [started.get(name), value]
            for name, value in self.options().items()
            if started.get(name) != value
        }
        for name, (before, now) in changed.items():
            if name not in self.CHANGEABLE:
                raise InputError(
                    f"{name} is {now}, but the run was started with {before}; resume with "
                    f"{name} {before}, or start afresh in another folder."
                )
        return changed

    def lr_scale(self, step: int, images_seen: int) -> float:
        """Share of the peak learning rate after ``step`` steps and ``images_seen`` images."""
        left = 1 - images_seen / self.images
        return min(1.0, (step + 1) / WARMUP_STEPS, max(left, 0.0) / self.cooldown)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """How a denoiser is trained.

    Attributes:
        size: side of the training images in pixels (or of their latents).
        form: one of `FORMS`. ``"residual"`` learns faster, above all at 256×256 pixels;
            ``"gaussian"`` has no network, and of the options only ``size`` and ``validation``.
        channels, patch, attention: the network, see `build_unet`. Larger patches are faster and
            coarser.
        augment: chance of an image to be moved, to be recolored and to be sharpened, see
            `diffsplit.training.augmentation`. Half of all images are mirrored in any case.
        sigma_min, sigma_max: range of noise levels.
        log_sigma_mean, log_sigma_std: where in it the run dwells.
    """

    size: int = 64
    channels: tuple[int, ...] = (64, 96, 128)
    patch: int = 2
    sigma_min: float = 0.01
    sigma_max: float = 160.0
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.4
    form: str = "edm"
    attention: int = 0
    augment: float = 0.0

    CHANGEABLE: ClassVar[frozenset[str]] = RunConfig.CHANGEABLE | {
        "augment",
        "log_sigma_mean",
        "log_sigma_std",
    }

    def _rules(self) -> dict[str, tuple[bool, str]]:
        return super()._rules() | {
            "size": (self.size >= 1, "1 or more"),
            "channels": multiples_of_16(self.channels),
            "patch": (self.patch >= 1, "1 or more"),
            "form": (self.form in FORMS, f"one of {', '.join(FORMS)}"),
            "attention": (
                0 <= self.attention <= len(self.channels) and self._attention_is_wide(),
                "0 up to the number of levels, these of 32 channels or more",
            ),
            "augment": (0 <= self.augment <= 1, "from 0 to 1"),
            "sigma_min": (0 < self.sigma_min < self.sigma_max, "positive and below sigma_max"),
            "sigma_max": (self.sigma_max < math.inf, "finite"),
            "log_sigma_mean": (math.isfinite(self.log_sigma_mean), "finite"),
            "log_sigma_std": (0 <= self.log_sigma_std < math.inf, "0 or more"),
        }

    def _attention_is_wide(self) -> bool:
        """Whether each level with attention has room for one head of 32 channels."""
        return all(width >= 32 for width in self.channels[len(self.channels) - self.attention :])
