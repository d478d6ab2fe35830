"""Consistency distillation: a denoiser's trajectories, learned as one evaluation.

    minimize  E ρ(f(x_σ, σ) − x_0),    ρ(d) = √(‖d‖²/n + c²) − c

over points x_σ of the teacher's probability-flow trajectories and their ends x_0. A consistency
function gives every point of a trajectory the same answer (Song et al. 2023, Eq. 1 and Def. 1).
Their Algorithm 2 asks for that between neighboring points, and waits until the boundary condition
has spread from there; here the end is walked to and told, which needs no target network, has no
bias, and suits short training. ρ is the pseudo-Huber loss of Song and Dhariwal 2024, Sec. 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, load_images
from diffsplit.noise import randn_like
from diffsplit.plots import image_grid
from diffsplit.priors.base import Denoiser
from diffsplit.priors.consistency import ConsistencyPrior
from diffsplit.priors.load import load_kind
from diffsplit.solvers.consistency_samples import multistep
from diffsplit.solvers.reverse import sample
from diffsplit.training.card import consistency_card
from diffsplit.training.config import RunConfig, multiples_of_16
from diffsplit.training.loop import CHECKPOINT, accelerated, fit, opened, split
from diffsplit.training.pictures import Pictures, load_pictures
from diffsplit.training.run import Run, fingerprint, seeded_weights, started
from diffsplit.training.train import write_card
from diffsplit.training.trajectories import Trajectories, trajectory_end

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["DistillConfig", "distill", "started_distill_config"]

WATCHED_SIGMAS = (0.317, 0.959, 2.899, 10.0)
"""Where the student is compared with its teacher, and at the highest level that it learns."""
HUBER = 0.00054
"""c of the loss, per entry."""
HELD_OUT = 24
"""Images that the student is compared with its teacher on."""
REFERENCE_STEPS = 24
"""Evaluations of the trajectories that the student is compared with."""
SECOND_SIGMA = 1.5
"""Where the second of two evaluations starts."""


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """How a consistency model is distilled.

    Attributes:
        steps: evaluations of the teacher along each trajectory.
        channels, patch: the network, if the teacher's is not of our own kind; see `build_unet`.
        sigma_max: the highest noise level it learns.
    """

    images: int = 100_000
    lr: float = 2e-3
    ema: float = 0.999
    steps: int = 10
    channels: tuple[int, ...] = (64, 96, 128)
    patch: int = 2
    sigma_max: float = 80.0

    def _rules(self) -> dict[str, tuple[bool, str]]:
        return super()._rules() | {
            "channels": multiples_of_16(self.channels),
            "patch": (self.patch >= 1, "1 or more"),
            "steps": (self.steps >= 3, "3 or more"),
            "sigma_max": (0.3 < self.sigma_max <= 1000, "above 0.3 and at most 1000"),
        }


def started_distill_config(out: Path) -> DistillConfig:
    """The recipe of the run whose checkpoint is in ``out``, to resume it with.

    Raises:
        InputError: there is no checkpoint, or it cannot be read.
    """
    return started(out / "training" / CHECKPOINT, DistillConfig)


class ConsistencyRun(Run):
    """Training of a consistency model on a teacher's trajectories.

    Args:
        teacher: a denoiser of images, on the device of the accelerator.
        images: bytes ``(N, C, H, W)``, or None.
        held_out: clean images ``(n, C, H, W)`` on [-1, 1] to measure the error on.
    """

    def __init__(
        self,
        config: DistillConfig,
        teacher: Denoiser,
        images: Pictures | None,
        held_out: Tensor,
        accelerator: Accelerator,
    ) -> None:
        with seeded_weights(config.seed):
            student = ConsistencyPrior.untrained(
                teacher, config.channels, config.patch, config.sigma_max
            )
        self.prior, self.teacher = student, teacher
        config = replace(  # the network and the levels that the teacher sets
            config,
            channels=tuple(student.unet.config.block_out_channels),
            patch=student.patch,
            sigma_max=student.sigma_max,
        )
        given = torch.zeros(0, dtype=torch.uint8) if images is None else images
        super().__init__(config, self.prior.unet, given, accelerator)
        self.held_out = held_out.to(teacher.device)
        low, high = student.sigma_min, student.sigma_max
        self.levels = [*(sigma for sigma in WATCHED_SIGMAS if sigma < high), high]
        self.watched = tuple(f"σ = {sigma:g}" for sigma in self.levels)
        with accelerator.autocast():
            self.pairs = Trajectories(teacher, images, config.steps, low, high, config.seed)

    def loss(self) -> Tensor:
        x, sigma, end = self.pairs.draw(self.config.batch)
        error = (self.prior.consistency(x, sigma) - end).flatten(1).square().mean(1)
        return ((error + HUBER**2).sqrt() - HUBER).mean()

    @cached_property
    def references(self) -> list[tuple[float, Tensor, Tensor]]:
        """For each watched level: noisy images, and where they lead."""
        generator = torch.Generator().manual_seed(1)
        triples = []
        for sigma in self.levels:
            x = self.held_out + sigma * randn_like(self.held_out, generator)
            triples.append((sigma, x, self._end(x, sigma)))
        return triples

    def _end(self, x: Tensor, sigma: float) -> Tensor:
        return trajectory_end(self.teacher, x, sigma, self.prior.sigma_min, REFERENCE_STEPS)

    @torch.no_grad()
    def errors(self) -> list[float]:
        return [
            (self.prior.clip(self.prior.consistency(x, sigma)) - end).square().mean().sqrt().item()
            for sigma, x, end in self.references
        ]

    @torch.no_grad()
    def pictures(self) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        top = self.prior.sigma_max
        x = top * randn_like(
            torch.empty((8, *self.prior.shape), device=self.prior.device), generator
        )
        once = multistep(self.prior, x, [top], generator)
        twice = multistep(self.prior, x, [top, SECOND_SIGMA], generator)
        return image_grid(torch.cat([once, twice, self._end(x, top)]), columns=8)

    def write(self, out: Path) -> None:
        self.prior.facts = self.card_facts()
        self.prior.save(out)

    def state(self) -> dict[str, Any]:
        return {"pairs": self.pairs.state_dict(), "teacher": _weights(self.teacher)}

    def recall(self, state: dict[str, Any]) -> None:
        if state["teacher"] != _weights(self.teacher):
            raise InputError(
                "that run was started with another teacher; give the same again, or start afresh "
                "in another folder."
            )
        with self.accelerator.autocast():
            self.pairs.load_state_dict(state["pairs"])


def distill(
    teacher: Path | str | Denoiser,
    out: Path,
    config: DistillConfig,
    *,
    data: Path | None = None,
    validation: Path | None = None,
    resume: bool = False,
    facts: dict[str, Any] | None = None,
    cpu: bool = False,
) -> ConsistencyPrior:
    """Distill a denoiser into a consistency model and save it to ``out``.

    ``out`` gets the model (see `ConsistencyPrior.save`), a model card, and in ``training/`` a
    checkpoint, the loss curve and grids of samples.

    Args:
        teacher: a denoiser, or what `load_prior` takes.
        out: a new or empty folder; with ``resume`` that of a started run.
        data: folder or zip of images: trajectories that start from them, with noise added, teach
            what restoration will ask for. Without it they start from noise, and nothing but the
            teacher is needed.
        validation: images to measure the error on; without it some of ``data``, or samples of the
            teacher.
        resume: go on from the checkpoint in ``out``, with the same teacher and data.
        facts: what the model card should say of data and license.
        cpu: stay on the CPU even where there is a GPU.

    Raises:
        InputError, DivergenceError, MissingDependencyError: see `train`; or the teacher is no
            denoiser of square images.
    """
    folder = out / "training"
    accelerator = accelerated(cpu)
    state = opened(out, folder / CHECKPOINT, config, resume)
    model: Denoiser = load_kind(Denoiser, teacher, accelerator.device)  # type: ignore[type-abstract]
    images, held_out = _data(model, config, data, validation)
    run = ConsistencyRun(config, model, images, held_out, accelerator)
    run.facts |= {"distilled_from": _name(model, teacher)}
    if data is not None:
        run.facts |= {"trained_on": data.name}
    fit(run, out, folder, "distillation", state, facts)
    run.write(out)
    write_card(out, consistency_card(run.prior, run.levels, run.errors()), run.pictures())
    return type(run.prior).load(out)


def _weights(model: Denoiser) -> str:
    """Tells one network from another by its weights; closed-form priors are not told apart."""
    weights = [p.detach().flatten() for network in model.networks for p in network.parameters()]
    return fingerprint(torch.cat(weights)) if weights else ""


def _name(model: Denoiser, given: Path | str | Denoiser) -> str:
    fallback = type(model).__name__ if isinstance(given, Denoiser) else Path(given).name
    return str(model.describe().get("name") or fallback)


def _data(
    model: Denoiser, config: DistillConfig, data: Path | None, validation: Path | None
) -> tuple[Pictures | None, Tensor]:
    """Training images in bytes, if any, and a few clean ones on [-1, 1] to measure with."""
    size = model.shape[-1]
    images = None if data is None else load_pictures(data, size)
    if validation is not None:
        return images, from_uint8(load_images(validation, size, limit=HELD_OUT))
    if images is not None:
        images, held_out = split(images, config)
        return images, from_uint8(held_out[:HELD_OUT])
    return None, sample(model, HELD_OUT, REFERENCE_STEPS, torch.Generator().manual_seed(1)).cpu()
