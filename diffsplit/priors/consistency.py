"""Consistency models: one evaluation leads from any noise level to a clean image.

    f(x, σ) = c_skip x + c_out F(c_in x, 250 ln σ)         (Song et al. 2023, Eq. 5, App. C)
    c_skip = σ_d²/((σ − ε)² + σ_d²),  c_out = σ_d (σ − ε)/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

so that f(x, ε) = x at ε = σ_min. f maps a whole trajectory of the probability-flow ODE to where it
starts: it answers with one likely image, and not, as a denoiser does, with the mean of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel
from diffsplit.priors.class_label import with_label
from diffsplit.priors.patched import PatchedUNet
from diffsplit.priors.pretrained import components, load_part, part_config

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DModel

__all__ = ["SCHEDULER", "ConsistencyPrior"]

SCHEDULER = "CMStochasticIterativeScheduler"


class ConsistencyPrior(PatchedUNet, ConsistencyModel):
    """A U-Net with the boundary scaling of consistency models.

    Args:
        unet: the network F, on ``patch``×``patch`` blocks of pixels as channels.
        sigma_data: σ_d.
        patch: side of the blocks; 1 for published models.
        sigma_min, sigma_max: the noise levels it was trained on; ε is ``sigma_min``.
        mean_square: E[x0²] per entry.
        facts: what the model card says, kept when saved.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    format = "diffsplit-consistency"

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float = 0.5,
        patch: int = 1,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        mean_square: float = 0.25,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(unet, sigma_data, patch, sigma_min, sigma_max, mean_square, facts)

    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        s, d = sigma.view(-1, 1, 1, 1), self.sigma_data
        norm, above = (s.square() + d**2).sqrt(), s - self.sigma_min
        c_skip, c_out, c_in = d**2 / (above.square() + d**2), d * above / norm, 1 / norm
        return c_skip * x + c_out * self._network(c_in * x, sigma)

    def _scheduler(self) -> SchedulerMixin:
        from diffusers import CMStochasticIterativeScheduler

        return CMStochasticIterativeScheduler(
            sigma_min=self.sigma_min, sigma_max=self.sigma_max, sigma_data=self.sigma_data
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, device: str | torch.device = "cpu", class_label: int | None = None
    ) -> ConsistencyPrior:
        """Load a `ConsistencyModelPipeline`: a folder (``unet/``, ``scheduler/``) or a hub id.

        Args:
            class_label: the class of a class-conditional model.

        Raises:
            InputError: nothing there, no consistency model, unreadable weights, or a class is
                missing or unknown.
        """
        if components(name_or_path).get("scheduler") != SCHEDULER:
            raise InputError(
                f"{name_or_path}: there is no {SCHEDULER}, so it is no consistency model, or the "
                "hub did not give it; check the name and the network, or use load_prior."
            )
        unet = with_label(load_part("UNet2DModel", name_or_path, "unet", device), class_label)
        config = part_config(name_or_path, "scheduler")
        try:
            return cls(
                unet,
                sigma_data=float(config.get("sigma_data", 0.5)),
                sigma_min=float(config.get("sigma_min", 0.002)),
                sigma_max=float(config.get("sigma_max", 80.0)),
            )
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"{name_or_path}: its configuration makes no sense ({str(error).rstrip('.')}); "
                "download it again."
            ) from error
