"""The prior that the parts of a published model make, by the class of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors.base import Denoiser, Prior
from diffsplit.priors.conditions import with_label
from diffsplit.priors.consistency import SCHEDULER, ConsistencyPrior
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.flow import FlowPrior
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.preconditioned import PreconditionedPrior
from diffsplit.priors.published import Parts
from diffsplit.priors.score import ScorePrior
from diffsplit.priors.storage import first_line
from diffsplit.priors.text import with_text

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["assembled", "scheduled"]

LEVELS = ("sigma_min", "sigma_max")
VE_UNITS = {"ScoreSdeVeScheduler": 2.0, "KarrasVeScheduler": 1.0}
"""Schedulers of score networks, and what their noise levels are multiplied by: those of the first
are of images on [0, 1]."""


def assembled(parts: Parts, class_label: int | None) -> Prior:
    """The prior of the kind that these parts make, or an InputError if they make none."""
    try:
        unet, scheduler = with_label(parts.unet, class_label), parts.scheduler
        unet = unet if parts.text is None else with_text(unet, parts.text)
        if scheduler.get("_class_name") == SCHEDULER and parts.autoencoder is None:
            return ConsistencyPrior(unet, **_numbers(scheduler, "sigma_data", *LEVELS))
        denoiser = scheduled(unet, scheduler)
        if parts.autoencoder is None:
            return denoiser
        return LatentPrior.from_models(parts.autoencoder, denoiser)
    except MissingDependencyError:
        raise
    except Exception as error:  # a stranger's configuration may break a constructor in any way
        raise InputError(f"{parts.name}: {first_line(error)}.") from error


def scheduled(unet: UNet2DModel, scheduler: Mapping[str, Any]) -> Denoiser:
    """A network in the parametrization that its scheduler stands for.

    Args:
        scheduler: its configuration; see `DiffusersPrior.scheduled`.

    Raises:
        InputError: the scheduler is of another kind.
    """
    kind = str(scheduler.get("_class_name"))
    if kind.startswith(("LCM", "TCD")):
        raise InputError(
            f"its scheduler ({kind}) is that of a latent consistency model, whose answers are no "
            "means; give the diffusion model that it was distilled from"
        )
    if kind in VE_UNITS:
        levels = _numbers(scheduler, *LEVELS)
        return ScorePrior(unet, **{name: VE_UNITS[kind] * level for name, level in levels.items()})
    if kind.startswith("EDM"):
        numbers = _numbers(scheduler, "sigma_data", *LEVELS)
        prediction = str(scheduler.get("prediction_type", "epsilon"))
        return PreconditionedPrior(unet, **numbers, prediction=prediction)
    if kind.startswith("FlowMatch") or scheduler.get("prediction_type") == "flow_prediction":
        if scheduler.get("invert_sigmas"):
            raise InputError(f"its scheduler ({kind}) runs from images to noise; none such is read")
        return FlowPrior(unet, scheduler.get("num_train_timesteps", 1000))
    return DiffusersPrior.scheduled(unet, scheduler)


def _numbers(scheduler: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the numbers that a scheduler has."""
    return {name: scheduler[name] for name in names if name in scheduler}
