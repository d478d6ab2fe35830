"""One function to load any prior by name or path."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import torch

from diffsplit.errors import InputError
from diffsplit.priors.base import Prior
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.edm import CONFIG_NAME, EDMPrior

__all__ = ["bundled_priors", "load_prior"]


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
        name_or_path: ``"cats-64"`` (bundled); a folder that ``diffsplit train`` wrote; a folder
            in the diffusers layout, or a hub id ``"organization/model"``, with a `UNet2DModel`.
        device: where to compute.

    Raises:
        InputError: nothing of that name, or it cannot be read.
    """
    name = os.fspath(name_or_path)
    folder = _bundle() / name if name in bundled_priors() else Path(name)
    if (folder / CONFIG_NAME).is_file():
        return EDMPrior.load(folder, device)
    if folder.is_dir() or name.count("/") == 1:
        return DiffusersPrior.load(name, device)
    raise InputError(
        f"{name}: no such prior; give one of the bundled ({', '.join(bundled_priors())}), a folder "
        "with a diffusion model, or a hub id of the form organization/model."
    )
