"""Published models in the diffusers layout: what a pipeline is made of, and loading its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from diffsplit.errors import InputError, MissingDependencyError

__all__ = [
    "LOADING",
    "components",
    "diffusers_class",
    "image_sides",
    "load_part",
    "part_config",
    "save_part",
]

PARTS = ("unet", "vae", "vqvae", "scheduler")
CONFIGS = {"scheduler": "scheduler_config.json"}
LOADING: dict[str, Any] = {
    "torch_dtype": torch.float32,
    "use_safetensors": True,
    "low_cpu_mem_usage": False,  # the default warns where accelerate is not installed
}
"""How the weights of every model are read."""


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
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


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


def diffusers_class(name: str) -> Any:
    """A class of diffusers.

    Raises:
        MissingDependencyError: diffusers cannot be imported, as happens where an optional library
            of its own, such as torchvision, was built for another PyTorch.
    """
    import diffusers

    try:
        return getattr(diffusers, name)
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"diffusers cannot be imported here ({str(error).strip().splitlines()[-1]}); install "
            "the builds of PyTorch and torchvision that belong together, or uninstall torchvision."
        ) from error


def load_part(kind: str, name_or_path: str, part: str, device: str | torch.device) -> Any:
    """One model of a pipeline, in float32, for evaluation alone.

    Args:
        kind: its class in diffusers.
        part: its subfolder.

    Raises:
        InputError: the weights are not there, or not readable.
        MissingDependencyError: see `diffusers_class`.
    """
    model_class = diffusers_class(kind)
    try:
        model = model_class.from_pretrained(name_or_path, subfolder=part, **LOADING)
    except Exception as error:  # a stranger's config may break a constructor in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name_or_path}: its {part}/ is no readable {kind} ({reason}); give a folder in the "
            "diffusers layout with safetensors weights, or a hub id, and check the network."
        ) from error
    return model.eval().requires_grad_(False).to(torch.device(device))


def image_sides(unet: Any) -> tuple[int, int]:
    """Height and width of what a network was trained on.

    Raises:
        InputError: its configuration does not name them.
    """
    size = unet.config.sample_size
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or [type(n) for n in sides] != [int, int]:
        sides = [0, 0]
    height, width = sides
    if min(height, width) < 1:
        raise InputError(
            f"the network's config.json gives {size!r:.40} as the size of its images; set "
            "sample_size to the side that it was trained on."
        )
    return height, width


def save_part(model: Any, folder: Path, half: bool, **config: Any) -> None:
    """Write a model in the diffusers layout, without the path that it was once loaded from.

    Args:
        half: store the weights in float16, at half the size.
        config: entries of its configuration to set otherwise.
    """
    known = {key: value for key, value in model.config.items() if key != "_name_or_path"}
    with torch.random.fork_rng(devices=[]):  # new weights are drawn, and replaced
        copy = type(model).from_config({**known, **config})
    copy.load_state_dict(model.state_dict())
    (copy.half() if half else copy).save_pretrained(folder)
