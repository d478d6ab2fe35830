"""A latent diffusion model: an encoder, a decoder, and a denoiser of what lies between them.

    z = scaling (E(x) − shift),   x = D(z/scaling + shift)

The scaling gives latents about unit variance (Rombach et al. 2022, Sec. G); the denoiser, itself a
prior, sees scaled latents alone, and its noise levels are in their units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser, LatentModel
from diffsplit.priors.checks import check_batch, check_shape, checked_number
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.parts import load_part
from diffsplit.priors.patched import PatchedDenoiser
from diffsplit.priors.residual import ResidualPrior
from diffsplit.priors.sizes import check_sides
from diffsplit.priors.storage import described, read_config, save_part, write_folder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, VQModel

__all__ = ["LatentPrior"]


class LatentPrior(LatentModel):
    """Images as an autoencoder's latents, and a prior for these.

    Args:
        shape: of one image.
        encode: from ``(B, *shape)`` to unscaled latents.
        decode: from unscaled latents to ``(B, *shape)``, differentiable.
        latent: the denoiser of scaled latents, its ``bounds`` None unless latents have any.
        scaling, shift: see above.
        bounds: range of a clean image's entries.
        facts: what the model card says, kept when saved.

    Attributes:
        autoencoder: the diffusers model that `from_models` got, else None.
    """

    format = "diffsplit-latent"

    def __init__(
        self,
        shape: Sequence[int],
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        latent: Denoiser,
        scaling: float = 1.0,
        shift: float = 0.0,
        bounds: tuple[float, float] | None = (-1.0, 1.0),
        facts: dict[str, Any] | None = None,
    ) -> None:
        numbers = checked_number("scaling", scaling), checked_number("shift", shift)
        if not 0 < scaling < math.inf or math.isinf(shift):
            raise InputError(
                "the scaling of latents is a positive number and their shift a finite one, not "
                f"{numbers[0]} and {numbers[1]}."
            )
        if not isinstance(latent, Denoiser):
            raise InputError(f"latents need a Denoiser, not {type(latent).__name__}.")
        self.shape, self.latent, self.bounds = check_shape(shape), latent, bounds
        self.sigma_min, self.sigma_max = latent.sigma_min, latent.sigma_max
        self.scaling, self.shift, self.facts = scaling, shift, facts or {}
        self._encode, self._decode = encode, decode
        self.autoencoder: AutoencoderKL | VQModel | None = None

    def encode(self, x: Tensor) -> Tensor:
        check_batch(x, self.shape)
        return self.scaling * (self._encode(x) - self.shift)

    def decode(self, z: Tensor) -> Tensor:
        check_batch(z, self.latent.shape)
        return self._decode(z / self.scaling + self.shift)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        own = () if self.autoencoder is None else (self.autoencoder,)
        return (*own, *self.latent.networks)

    def at(self, shape: Sequence[int]) -> LatentPrior:
        if self.autoencoder is None:
            return super().at(shape)
        factor = self.shape[-1] // self.latent.shape[-1]
        channels, *sides = check_sides(self, shape, factor)
        code = self.latent.at((self.latent.shape[0], *(side // factor for side in sides)))
        other = copy(self)
        other.shape, other.latent, other._forward_bytes = (channels, *sides), code, None
        return other

    def describe(self) -> dict[str, object]:
        facts: dict[str, object] = {**super().describe(), "latent_shape": list(self.latent.shape)}
        if self.autoencoder is not None:
            facts["parameters"] = self.latent.describe().get("parameters")
            facts["autoencoder_parameters"] = sum(p.numel() for p in self.autoencoder.parameters())
        return {**facts, **self.facts}

    @classmethod
    def from_models(
        cls,
        autoencoder: AutoencoderKL | VQModel,
        latent: Denoiser,
        scaling: float | None = None,
        shift: float | None = None,
        facts: dict[str, Any] | None = None,
    ) -> LatentPrior:
        """Around a diffusers autoencoder; the latents of a KL one are its posterior's mean.

        Args:
            latent: the denoiser of scaled latents; its ``bounds`` are set to None.
            scaling, shift: those of the autoencoder's configuration if None; a `VQModel` from a
                file that names no scaling has none, see `_scaling`.
        """
        config = autoencoder.config
        if latent.shape[0] != config.latent_channels:
            raise InputError(
                f"the denoiser takes {latent.shape[0]} channels and the autoencoder gives "
                f"{config.latent_channels}; they do not belong together."
            )

        def encode(x: Tensor) -> Tensor:
            code = autoencoder.encode(x.to(autoencoder.dtype))
            z: Tensor = code.latents if hasattr(code, "latents") else code.latent_dist.mode()
            return z.to(x.dtype)

        def decode(z: Tensor) -> Tensor:
            image: Tensor = autoencoder.decode(z.to(autoencoder.dtype), return_dict=False)[0]
            return image.to(z.dtype)

        factor = 2 ** (len(config.block_out_channels) - 1)
        shape = (config.in_channels, *(factor * side for side in latent.shape[1:]))
        scaling = _scaling(autoencoder) if scaling is None else scaling
        shift = float(getattr(config, "shift_factor", None) or 0.0) if shift is None else shift
        latent.bounds = None
        result = cls(shape, encode, decode, latent, scaling, shift, facts=facts)
        result.autoencoder = autoencoder
        return result

    def save(self, folder: Path, half: bool = True) -> None:
        """Write ``vae/`` (diffusers layout), ``latent/`` (that prior) and ``prior.json``.

        Args:
            half: store the weights in float16, at half the size.

        Raises:
            InputError: the parts are not an `AutoencoderKL` and a `PatchedDenoiser`.
        """
        from diffusers import AutoencoderKL

        latent = self.latent
        if not isinstance(self.autoencoder, AutoencoderKL) or not isinstance(
            latent, PatchedDenoiser
        ):
            raise InputError(
                "only a latent prior of an AutoencoderKL and a denoiser of `diffsplit train` can "
                "be saved; a published model is already a folder."
            )
        scale = {"scaling_factor": self.scaling, "shift_factor": self.shift}
        config = {"scaling": self.scaling, "shift": self.shift, "facts": self.facts}
        with write_folder(folder, self.format, {"shape": list(self.shape), **config}) as temporary:
            save_part(self.autoencoder, temporary / "vae", half, **scale)
            latent.save(temporary / "latent", half)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> LatentPrior:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, or of another format version.
        """
        with described(folder, cls.format) as config:
            autoencoder = load_part("AutoencoderKL", folder, "vae", device)
            kind = read_config(folder / "latent").get("format")
            latent = (ResidualPrior if kind == ResidualPrior.format else EDMPrior).load(
                folder / "latent", device
            )
            scaling, shift = float(config["scaling"]), float(config["shift"])
            return cls.from_models(autoencoder, latent, scaling, shift, dict(config["facts"]))


def _scaling(autoencoder: AutoencoderKL | VQModel) -> float:
    """What the latents of an autoencoder are multiplied by, as its configuration says.

    Latent models with a `VQModel` did not scale their latents when `scaling_factor` was introduced.
    A file without this entry is from before, and its scaling is 1, as in Rombach et al. 2022. The
    default of the class, 0.18215, is that of Stable Diffusion's `AutoencoderKL`.
    """
    config = autoencoder.config
    from_file = config.get("_name_or_path") is not None
    default = "scaling_factor" in config.get("_use_default_values", ())
    kind = str(config.get("_class_name", type(autoencoder).__name__))
    return 1.0 if from_file and default and kind == "VQModel" else float(config.scaling_factor)
