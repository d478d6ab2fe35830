"""Published models: the parts of a diffusers pipeline, from a folder or already in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.storage import diffusers_class, load_part, read_json

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel, VQModel

__all__ = [
    "LabeledUNet",
    "Parts",
    "announced_shape",
    "check_kinds",
    "parts_in_memory",
    "read_parts",
    "with_label",
]

NETWORK = "UNet2DModel"
AUTOENCODERS = {"vae": "AutoencoderKL", "vqvae": "VQModel"}
"""The usual class in each subfolder; the other one is read as well."""


@dataclass(frozen=True)
class Parts:
    """What a pipeline is made of; its ``name`` is for messages.

    Attributes:
        scheduler: the noise schedule, as diffusers writes it; empty where there is none.
        autoencoder: of a latent model, else None.
    """

    name: str
    unet: UNet2DModel
    scheduler: dict[str, Any]
    autoencoder: AutoencoderKL | VQModel | None = None


def check_kinds(folder: Path) -> dict[str, str]:
    """The class of each network in a folder, by its subfolder ("" for the folder itself).

    Where there is no network, or one of a kind that no prior is made of, an InputError says so.
    """
    places = [_place(folder), *AUTOENCODERS]
    configs = {place: _read(folder / place / "config.json") for place in places}
    kinds = {place: str(c.get("_class_name", NETWORK)) for place, c in configs.items() if c}
    for place, kind in kinds.items():
        if kind not in (AUTOENCODERS.values() if place in AUTOENCODERS else [NETWORK]):
            raise InputError(
                f"{folder}: its {place or 'network'} is a {kind:.40}; a prior is made of a "
                f"{NETWORK}, and of an AutoencoderKL or a VQModel for latents."
            )
    if places[0] not in kinds:
        raise InputError(
            f"{folder}: no readable diffusers model; give a folder with the config.json and the "
            f"safetensors weights of a {NETWORK}, or a pipeline that has one."
        )
    return kinds


def announced_shape(folder: Path) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of the images that a model is for; None where its configurations do not say."""
    network, factor = _read(folder / _place(folder) / "config.json"), 1
    channels, size = network.get("in_channels"), network.get("sample_size")
    for part in AUTOENCODERS:
        autoencoder = _read(folder / part / "config.json")
        if autoencoder:
            channels = autoencoder.get("in_channels")
            factor = 2 ** (len(autoencoder.get("block_out_channels", ())) - 1)
    if type(channels) is not int or type(size) is not int:
        return None
    return channels, factor * size, factor * size


def read_parts(folder: Path, device: str | torch.device) -> Parts:
    """The parts of a pipeline (``unet/``, ``scheduler/``, ``vae/``, ``vqvae/``) or bare network."""
    kinds = check_kinds(folder)
    (place, kind), *others = kinds.items()
    inner = folder / "scheduler" if place else folder
    autoencoder = next((load_part(kind, folder, part, device) for part, kind in others), None)
    unet = load_part(kind, folder, place, device)
    return Parts(str(folder), unet, _read(inner / "scheduler_config.json"), autoencoder)


def _place(folder: Path) -> str:
    """The subfolder of the network."""
    return "unet" if (folder / "unet").is_dir() else ""


def _read(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    return read_json(file, "not readable", "download the model again") if file.is_file() else {}


def parts_in_memory(source: Any) -> Parts:
    """The parts of a pipeline, or of a pair ``(network, scheduler)``; else an InputError.

    The networks are set to evaluate (no dropout); their weights are left alone.
    """
    if isinstance(source, tuple | list) and len(source) == 2:
        (unet, scheduler), autoencoder = source, None
    else:
        unet, scheduler = getattr(source, "unet", None), getattr(source, "scheduler", None)
        places = [getattr(source, place, None) for place in AUTOENCODERS]
        autoencoder = next((model for model in places if model is not None), None)
        if unet is None or scheduler is None:
            raise InputError(
                "load_prior takes a bundled name, a folder, a hub id, a diffusers pipeline or a "
                f"pair (network, scheduler), not {type(source).__name__}; give such a pair, or "
                "wrap any other model with ds.priors.from_callable."
            )
    config = getattr(scheduler, "config", None)
    known = *map(diffusers_class, AUTOENCODERS.values()), type(None)
    is_network = isinstance(getattr(unet, "_orig_mod", unet), diffusers_class(NETWORK))  # compiled
    if not (is_network and isinstance(config, Mapping) and isinstance(autoencoder, known)):
        found = [type(part).__name__ for part in (unet, scheduler, autoencoder) if part is not None]
        raise InputError(
            f"a prior is made of a {NETWORK} and its scheduler, and of an AutoencoderKL or a "
            f"VQModel for latents, in this order, not of {', '.join(found)}; wrap any other model "
            "with ds.priors.from_callable."
        )
    name = type(source).__name__ if hasattr(source, "unet") else "(network, scheduler)"
    schedule = {**config, "_class_name": type(scheduler).__name__}
    for model in (unet, autoencoder):
        if isinstance(model, torch.nn.Module):
            model.eval()
    return Parts(name, cast(Any, unet), schedule, cast(Any, autoencoder))


class LabeledUNet(torch.nn.Module):
    """A class-conditional `UNet2DModel` of which every evaluation gets the class ``label``."""

    def __init__(self, unet: UNet2DModel, label: int) -> None:
        super().__init__()
        self.unet, self.label = unet, label
        self.config = unet.config

    @property
    def dtype(self) -> torch.dtype:
        result: torch.dtype = self.unet.dtype
        return result

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        labels = torch.full((len(x),), self.label, device=x.device)
        result: tuple[Tensor] = self.unet(x, timestep, class_labels=labels, return_dict=return_dict)
        return result


def with_label(unet: UNet2DModel, label: int | None) -> UNet2DModel:
    """The network with its class chosen, or itself where it knows no classes."""
    conditional = unet.class_embedding is not None
    classes = unet.config.num_class_embeds
    if conditional and label is None:
        raise InputError(
            f"the model knows {classes or 'several'} classes; give the index of one as class_label."
        )
    if label is None:
        return unet
    if not conditional:
        raise InputError("the model knows no classes; leave class_label out.")
    if not isinstance(label, int) or not 0 <= label < (classes or label + 1):
        raise InputError(f"class {label} does not exist; give one from 0 to {(classes or 0) - 1}.")
    return LabeledUNet(unet, label)
