"""Consistency models: one evaluation leads from any noise level to a clean image.

    f(x, σ) = c_skip x + c_out F(c_in x, 250 ln σ)         (Song et al. 2023, Eq. 5, App. C)
    c_skip = σ_d²/((σ − ε)² + σ_d²),  c_out = σ_d (σ − ε)/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

so that f(x, ε) = x at ε = σ_min. f maps a whole trajectory of the probability-flow ODE to where it
starts: it answers with one likely image, and not, as a denoiser does, with the mean of all of them.
"""

from __future__ import annotations

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.patched import PatchedUNet, build_unet

__all__ = ["SCHEDULER", "ConsistencyPrior"]

SCHEDULER = "CMStochasticIterativeScheduler"


class ConsistencyPrior(PatchedUNet, ConsistencyModel):
    """A U-Net with the boundary scaling of consistency models.

    See `PatchedUNet`; ε is ``sigma_min``.
    """

    format, scheduler = "diffsplit-consistency", SCHEDULER

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
            channels, patch: the network, unless the teacher is an `EDMPrior`; see `build_unet`.
            sigma_max: the highest noise level, unless the teacher's is lower.

        Raises:
            InputError: the images are not square, or do not fit the network.
        """
        if len(teacher.shape) != 3 or teacher.shape[1] != teacher.shape[2]:
            sides = "×".join(map(str, teacher.shape))
            raise InputError(
                f"the shape is {sides}; only denoisers of square images are distilled."
            )
        sigma_data = teacher.mean_square**0.5
        if isinstance(teacher, EDMPrior):
            sigma_data, patch = teacher.sigma_data, teacher.patch
            unet = type(teacher.unet).from_config(teacher.unet.config)
            unet.load_state_dict(teacher.unet.state_dict())
        else:
            unet = build_unet(teacher.shape[1], patch, channels, teacher.shape[0])
        top = min(sigma_max, teacher.sigma_max)
        return cls(unet, sigma_data, patch, teacher.sigma_min, top, teacher.mean_square)
