"""A latent diffusion model: an encoder, a decoder, and a denoiser of what lies between them.

    z = scaling (E(x) − shift),   x = D(z/scaling + shift)

The scaling gives latents about unit variance (Rombach et al. 2022, Sec. G); the denoiser, itself a
prior, sees scaled latents alone, and its noise levels are in their units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser, LatentModel, check_shape
from diffsplit.priors.class_label import with_label
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.folder import described, write_folder
from diffsplit.priors.pretrained import components, load_part, save_part

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, VQModel

__all__ = ["LatentPrior"]
AUTOENCODERS = ("AutoencoderKL", "VQModel")


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
        if not 0 < scaling < math.inf or not math.isfinite(shift):
            raise InputError(
                "the scaling of latents is a positive number and their shift a number, not "
                f"{scaling} and {shift}."
            )
        self.shape, self.latent, self.bounds = check_shape(shape), latent, bounds
        self.sigma_min, self.sigma_max = latent.sigma_min, latent.sigma_max
        self.scaling, self.shift, self.facts = scaling, shift, facts or {}
        self._encode, self._decode = encode, decode
        self.autoencoder: AutoencoderKL | VQModel | None = None

    def encode(self, x: Tensor) -> Tensor:
        """Scaled latents ``(B, *latent.shape)`` of images ``(B, *shape)`` on [-1, 1]."""
        return self.scaling * (self._encode(x) - self.shift)

    def decode(self, z: Tensor) -> Tensor:
        """Images ``(B, *shape)``, not clipped, of scaled latents ``(B, *latent.shape)``."""
        return self._decode(z / self.scaling + self.shift)

    @property
    def device(self) -> torch.device:
        return self.latent.device

    def to(self, device: str | torch.device) -> LatentPrior:
        if self.autoencoder is not None:
            self.autoencoder.to(device=torch.device(device))
        self.latent.to(device)
        return self

    def describe(self) -> dict[str, object]:
        facts: dict[str, object] = {**super().describe(), "latent_shape": list(self.latent.shape)}
        facts["parameters"] = self.latent.describe().get("parameters")
        if self.autoencoder is not None:
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
            scaling, shift: those of the autoencoder's configuration if None.
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
        if scaling is None:
            scaling = float(config.scaling_factor)
        if shift is None:
            shift = float(getattr(config, "shift_factor", None) or 0.0)
        latent.bounds = None
        result = cls(shape, encode, decode, latent, scaling, shift, facts=facts)
        result.autoencoder = autoencoder
        return result

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        device: str | torch.device = "cpu",
        class_label: int | None = None,
        scaling: float | None = None,
    ) -> LatentPrior:
        """Load an unconditional or class-conditional latent pipeline: a folder or a hub id.

        It has ``unet/`` (`UNet2DModel`), ``scheduler/`` and ``vae/`` (`AutoencoderKL`) or
        ``vqvae/`` (`VQModel`).

        Args:
            class_label: the class of a class-conditional model.
            scaling: another scaling of the latents than the autoencoder's configuration names.

        Raises:
            InputError: a part is missing, unreadable or of another kind, or a class is missing or
                unknown.
        """
        parts = components(name_or_path)
        place = "vae" if "vae" in parts else "vqvae"
        if parts.get(place) not in AUTOENCODERS or parts.get("unet") != "UNet2DModel":
            found = ", ".join(f"{part}/ {kind}" for part, kind in parts.items()) or "nothing"
            raise InputError(
                f"{name_or_path}: a latent model has unet/ (a UNet2DModel) and vae/ or vqvae/ (an "
                f"AutoencoderKL or a VQModel), and there is {found}; check the folder, the name "
                "and the network."
            )
        latent = DiffusersPrior.load(name_or_path, device)
        latent.unet = with_label(latent.unet, class_label)
        autoencoder = load_part(parts[place], name_or_path, place, device)
        return cls.from_models(autoencoder, latent, scaling)

    def save(self, folder: Path, half: bool = True) -> None:
        """Write ``vae/`` (diffusers layout), ``latent/`` (see `EDMPrior.save`) and ``prior.json``.

        Args:
            half: store the weights in float16, at half the size.

        Raises:
            InputError: the parts are not an `AutoencoderKL` and an `EDMPrior`.
        """
        from diffusers import AutoencoderKL

        if not isinstance(self.autoencoder, AutoencoderKL) or not isinstance(self.latent, EDMPrior):
            raise InputError(
                "only a latent prior of an AutoencoderKL and an EDMPrior can be saved; a published "
                "model is already a folder."
            )
        config = {
            "shape": list(self.shape),
            "scaling": self.scaling,
            "shift": self.shift,
            "facts": self.facts,
        }
        scale = {"scaling_factor": self.scaling, "shift_factor": self.shift}
        with write_folder(folder, self.format, config) as temporary:
            save_part(self.autoencoder, temporary / "vae", half, **scale)
            self.latent.save(temporary / "latent", half)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> LatentPrior:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, or of another format version.
        """
        with described(folder, cls.format) as config:
            autoencoder = load_part("AutoencoderKL", str(folder), "vae", device)
            latent = EDMPrior.load(folder / "latent", device)
            scaling, shift = float(config["scaling"]), float(config["shift"])
            return cls.from_models(autoencoder, latent, scaling, shift, dict(config["facts"]))
