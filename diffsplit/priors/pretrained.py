"""Published models in the diffusers layout: what a pipeline is made of, and loading its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from diffsplit.errors import InputError

__all__ = ["components", "load_part", "part_config"]

PARTS = ("unet", "vae", "vqvae", "scheduler")
CONFIGS = {"scheduler": "scheduler_config.json"}


def part_config(name_or_path: str, part: str) -> dict[str, Any]:
    """The configuration of a part (or of the whole, for ``part=""``); empty where there is none.

    Args:
        name_or_path: a folder or a hub id.
        part: a subfolder.
    """
    file = CONFIGS.get(part, "config.json") if part else "model_index.json"
    folder = Path(name_or_path)
    path = folder / part / file if folder.is_dir() else _downloaded(name_or_path, part, file)
    if path is None:
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _downloaded(name: str, part: str, file: str) -> Path | None:
    from huggingface_hub import file_exists, hf_hub_download, try_to_load_from_cache

    file = f"{part}/{file}" if part else file
    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:  # asking first, since a download tries an unreachable hub again and again
        return Path(hf_hub_download(name, file)) if file_exists(name, file) else None
    except Exception:  # any failure comes back, explained, when the weights are asked for
        return None


def components(name_or_path: str) -> dict[str, str]:
    """The class of each part of a pipeline, by its subfolder; empty where there is no pipeline."""
    if Path(name_or_path).is_dir():
        found = {part: part_config(name_or_path, part).get("_class_name") for part in PARTS}
    else:
        index = part_config(name_or_path, "")
        pairs = {part: index.get(part) for part in PARTS}
        found = {p: v[1] if isinstance(v, list) and len(v) == 2 else None for p, v in pairs.items()}
    return {part: str(name) for part, name in found.items() if name}


def load_part(kind: str, name_or_path: str, part: str, device: str | torch.device) -> Any:
    """One model of a pipeline, in float32, for evaluation alone.

    Args:
        kind: its class in diffusers.
        part: its subfolder.

    Raises:
        InputError: the weights are not there, or not readable.
    """
    import diffusers

    try:
        model = getattr(diffusers, kind).from_pretrained(
            name_or_path, subfolder=part, torch_dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name_or_path}: its {part}/ is no readable {kind} ({reason}); give a folder in the "
            "diffusers layout with safetensors weights, or a hub id, and check the network."
        ) from error
    return model.eval().requires_grad_(False).to(torch.device(device))
