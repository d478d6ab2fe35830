"""Consistency models: one evaluation leads from any noise level to a clean image.

    f(x, σ) = c_skip x + c_out F(c_in x, 250 ln σ)         (Song et al. 2023, Eq. 5, App. C)
    c_skip = σ_d²/((σ − ε)² + σ_d²),  c_out = σ_d (σ − ε)/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

so that f(x, ε) = x at ε = σ_min. f maps a whole trajectory of the probability-flow ODE to where it
starts: it answers with one likely image, and not, as a denoiser does, with the mean of all of them.

On top of a Wiener filter (see `residual`) it is one Euler step of that ODE, from σ to ε, with D in
the form of such a denoiser, so that before any training it is the teacher's step:

    f(x, σ) = x + (1 − ε/σ) (D(x, σ) − x)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.patched import PatchedUNet, build_unet
from diffsplit.priors.residual import ResidualPrior, ResidualUNet

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["SCHEDULER", "ConsistencyPrior", "ResidualConsistency"]

SCHEDULER = "CMStochasticIterativeScheduler"


class ConsistencyPrior(PatchedUNet, ConsistencyModel):
    """A U-Net with the boundary scaling of consistency models.

    See `PatchedUNet`; ε is ``sigma_min``.
    """

    format = "diffsplit-consistency"
    scheduler: ClassVar[str | None] = SCHEDULER

    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        s, d = sigma.view(-1, 1, 1, 1), self.sigma_data
        norm, above = (s.square() + d**2).sqrt(), s - self.sigma_min
        c_skip, c_out, c_in = d**2 / (above.square() + d**2), d * above / norm, 1 / norm
        return c_skip * x + c_out * self._network(c_in * x, sigma)

    @classmethod
    def untrained(
        cls, teacher: Denoiser, channels: tuple[int, ...], patch: int, sigma_max: float
    ) -> ConsistencyPrior:
        """A model to be distilled from a teacher, with the teacher's weights where they fit.

        Args:
            teacher: a denoiser of square images.
            channels, patch: the network, unless the teacher is an `EDMPrior` or a
                `ResidualPrior`, whose own is taken over; see `build_unet`.
            sigma_max: the highest noise level, unless the teacher's is lower.

        Raises:
            InputError: the images are not square, or do not fit the network.
        """
        if len(teacher.shape) != 3 or teacher.shape[1] != teacher.shape[2]:
            sides = "×".join(map(str, teacher.shape))
            raise InputError(
                f"the shape is {sides}; only denoisers of square images are distilled."
            )
        numbers: dict[str, Any] = {
            "sigma_data": teacher.mean_square**0.5,
            "patch": patch,
            "sigma_min": teacher.sigma_min,
            "sigma_max": min(sigma_max, teacher.sigma_max),
            "mean_square": teacher.mean_square,
        }
        if not isinstance(teacher, EDMPrior | ResidualPrior):
            unet = build_unet(teacher.shape[1], patch, channels, teacher.shape[0])
            return ConsistencyPrior(unet, **numbers)
        numbers |= {"sigma_data": teacher.sigma_data, "patch": teacher.patch}
        if isinstance(teacher, EDMPrior):
            return ConsistencyPrior(_copy(teacher.unet), **numbers)
        return ResidualConsistency(_copy(teacher.unet), teacher.gaussian, **numbers)


class ResidualConsistency(ResidualUNet, ConsistencyPrior):
    """A consistency model on top of a Wiener filter; see `ResidualUNet`."""

    format = "diffsplit-residual-consistency"
    scheduler = None  # diffusers has no class for it

    def _consistency(self, x: Tensor, sigma: Tensor) -> Tensor:
        share = (1 - self.sigma_min / sigma).view(-1, 1, 1, 1)
        return x + share * (self._corrected(x, sigma) - x)


def _copy(unet: UNet2DModel) -> UNet2DModel:
    """A network of the same weights, to be trained."""
    copy = type(unet).from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy
