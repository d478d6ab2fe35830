"""Published models: the parts of a diffusers pipeline, from a folder or already in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.parts import load_part
from diffsplit.priors.storage import diffusers_class, read_json
from diffsplit.priors.text import TEXT_NETWORK, check_text_network, embedded, read_text

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel, VQModel

__all__ = [
    "Parts",
    "announced_shape",
    "check_kinds",
    "parts_in_memory",
    "read_parts",
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
        text: what every evaluation is told, embedded ``(tokens, width)``; None for nothing.
    """

    name: str
    unet: UNet2DModel
    scheduler: dict[str, Any]
    autoencoder: AutoencoderKL | VQModel | None = None
    text: Tensor | None = None


def check_kinds(folder: Path) -> dict[str, str]:
    """The class of each network in a folder, by its subfolder ("" for the folder itself).

    Where there is no network, or one of a kind that no prior is made of, an InputError says so.
    """
    places = [_place(folder), *AUTOENCODERS]
    configs = {place: _read(folder / place / "config.json") for place in places}
    kinds = {place: str(c.get("_class_name", NETWORK)) for place, c in configs.items() if c}
    for place, kind in kinds.items():
        if kind not in (
            AUTOENCODERS.values() if place in AUTOENCODERS else [NETWORK, TEXT_NETWORK]
        ):
            raise InputError(
                f"{folder}: its {place or 'network'} is a {kind:.40}; a prior is made of a "
                f"{NETWORK}, and of an AutoencoderKL or a VQModel for latents."
            )
    if kinds.get(places[0]) == TEXT_NETWORK:
        encoder = _read(folder / "text_encoder" / "config.json")
        check_text_network(str(folder), configs[places[0]], encoder)
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


def read_parts(folder: Path, device: str | torch.device, prompt: str | None) -> Parts:
    """The parts of a pipeline (``unet/``, ``scheduler/``, ``vae/``, ``vqvae/``) or bare network.

    Args:
        prompt: of a network that is told a text; None for the empty one, and for other networks.
    """
    kinds = check_kinds(folder)
    (place, kind), *others = kinds.items()
    _check_prompt(kind, prompt, str(folder))
    text = read_text(folder, prompt or "") if kind == TEXT_NETWORK else None
    apart = folder / "scheduler"
    inner = apart if place or apart.is_dir() else folder
    autoencoder = next((load_part(kind, folder, part, device) for part, kind in others), None)
    unet = load_part(kind, folder, place, device)
    return Parts(str(folder), unet, _read(inner / "scheduler_config.json"), autoencoder, text)


def _check_prompt(kind: str, prompt: str | None, name: str) -> None:
    if prompt is not None and kind != TEXT_NETWORK:
        raise InputError(f"{name}: the model is told no text; leave prompt out.")


def _place(folder: Path) -> str:
    """The subfolder of the network."""
    return "unet" if (folder / "unet").is_dir() else ""


def _read(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    return read_json(file, "not readable", "download the model again") if file.is_file() else {}


def parts_in_memory(source: Any, prompt: str | None) -> Parts:
    """The parts of a pipeline, or of a pair ``(network, scheduler)``; else an InputError.

    The networks are set to evaluate (no dropout); their weights are left alone.

    Args:
        prompt: see `read_parts`.
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
    network = getattr(unet, "_orig_mod", unet)  # of a compiled one
    is_text = hasattr(source, "text_encoder") and isinstance(network, diffusers_class(TEXT_NETWORK))
    is_network = is_text or isinstance(network, diffusers_class(NETWORK))
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
    _check_prompt(type(network).__name__, prompt, name)
    text = _text_in_memory(source, name, prompt) if is_text else None
    return Parts(name, cast(Any, unet), schedule, cast(Any, autoencoder), text)


def _text_in_memory(pipeline: Any, name: str, prompt: str | None) -> Tensor:
    encoder, tokenizer = pipeline.text_encoder, getattr(pipeline, "tokenizer", None)
    known = {} if encoder is None or tokenizer is None else encoder.config.to_dict()
    check_text_network(name, pipeline.unet.config, known)
    return embedded(encoder, tokenizer, prompt or "")
