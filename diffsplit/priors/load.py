"""One function to load any prior by name or path."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

import torch

from diffsplit.errors import InputError
from diffsplit.priors.base import Prior
from diffsplit.priors.consistency import SCHEDULER, ConsistencyPrior
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.folder import CONFIG_NAME, read_config
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.pretrained import components

__all__ = ["bundled_priors", "load_prior"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def _bundle() -> Path:
    return Path(str(resources.files("diffsplit"))) / "assets" / "priors"


def bundled_priors() -> list[str]:
    """Names of the priors that come with the package."""
    folder = _bundle()
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def load_prior(
    name_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> Prior:
    """Load a prior: a bundled name, a folder, or a hub id.

    Args:
        name_or_path: ``"cats-64"``, ``"cats-64-consistency"`` or ``"cats-64-latent"`` (bundled); a
            folder that ``diffsplit train`` or ``diffsplit distill`` wrote, which comes before a
            bundled prior of the same name; a folder in the diffusers layout, or a hub id
            ``"organization/model"``, with a `UNet2DModel`: a diffusion model, a consistency model,
            or with an autoencoder a latent one. A class-conditional one needs the
            ``from_pretrained`` of its class.
        device: where to compute.

    Raises:
        InputError: nothing of that name, or it cannot be read.
    """
    name = os.fspath(name_or_path)
    folder = Path(name)
    if name in bundled_priors() and not (folder / CONFIG_NAME).is_file():
        folder = _bundle() / name
    if (folder / CONFIG_NAME).is_file():
        return _load_own(folder, device)
    if folder.is_dir() or HUB_ID.fullmatch(name):
        parts = components(name)
        if "vae" in parts or "vqvae" in parts:
            return LatentPrior.from_pretrained(name, device)
        if parts.get("scheduler") == SCHEDULER:
            return ConsistencyPrior.from_pretrained(name, device)
        return DiffusersPrior.load(name, device)
    raise InputError(
        f"{name}: no such prior; give one of the bundled ({', '.join(bundled_priors())}), a folder "
        "with a diffusion model, or a hub id of the form organization/model."
    )


def _load_own(folder: Path, device: str | torch.device) -> Prior:
    kind = read_config(folder).get("format")
    if kind == LatentPrior.format:
        return LatentPrior.load(folder, device)
    if kind == ConsistencyPrior.format:
        return ConsistencyPrior.load(folder, device)
    return EDMPrior.load(folder, device)
