"""Priors on disk: networks in the diffusers layout and, for our own, ``prior.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplit.devices import checked_device
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.files import atomic_folder

__all__ = [
    "CONFIG_NAME",
    "described",
    "diffusers_class",
    "image_sides",
    "load_part",
    "read_config",
    "read_tensors",
    "save_part",
    "save_tensors",
    "write_folder",
]

CONFIG_NAME = "prior.json"
VERSION = 1
LOADING: dict[str, Any] = {
    "torch_dtype": torch.float32,
    "use_safetensors": True,
    "low_cpu_mem_usage": False,  # the default warns where accelerate is not installed
}
"""How the weights of every model are read."""


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in ``prior.json`` in a folder.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
        if not isinstance(config, dict):
            raise TypeError("no JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder / CONFIG_NAME}: not a readable prior description ({error}); "
            "give a folder written by `diffsplit train` or `diffsplit distill`."
        ) from error
    return config


@contextmanager
def described(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The description of a prior of that kind; what it lacks is told in one sentence.

    Args:
        kind: the name of the format.

    Raises:
        InputError: unreadable, of another format or version, or incomplete: a key that the block
            asks for is missing, or its value makes no sense.
    """
    config = read_config(folder)
    if config.get("format") != kind or config.get("version") != VERSION:
        raise InputError(
            f"{folder}: format {config.get('format')!r:.40} version "
            f"{config.get('version')!r:.20}; "
            f"this version reads {kind!r} version {VERSION}; update diffsplit or train again."
        )
    try:
        yield config
    except MissingDependencyError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, InputError) and str(error).startswith(str(folder)):
            raise  # of a part of it, and complete
        raise InputError(
            f"{folder}: not a complete prior ({str(error).rstrip('.')}); train or copy it again."
        ) from error


@contextmanager
def write_folder(folder: Path, kind: str, config: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder for the models; an earlier prior is replaced when all is complete.

    Args:
        config: what `described` should give back.
    """
    whole = {"format": kind, "version": VERSION, **config}
    with atomic_folder(folder, last=CONFIG_NAME) as temporary:
        yield temporary
        (temporary / CONFIG_NAME).write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


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


def load_part(kind: str, folder: Path, part: str, device: str | torch.device) -> Any:
    """One model of a folder, in float32, for evaluation alone.

    Args:
        kind: its class in diffusers.
        part: its subfolder; "" for the folder itself.

    Raises:
        InputError: the weights are not there, or not readable.
        MissingDependencyError: see `diffusers_class`.
    """
    model_class = diffusers_class(kind)
    try:
        model = model_class.from_pretrained(str(folder), subfolder=part or None, **LOADING)
    except Exception as error:  # a stranger's configuration may break a constructor in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{folder / part}: no readable {kind} ({reason}); give a folder in the diffusers "
            "layout with safetensors weights."
        ) from error
    return model.eval().requires_grad_(False).to(checked_device(device))


def image_sides(unet: Any) -> tuple[int, int]:
    """Height and width of what a network was trained on.

    Raises:
        InputError: it is no diffusers network, or its configuration does not name them.
    """
    if not hasattr(getattr(unet, "config", None), "sample_size"):
        raise InputError(
            f"the network is a {type(unet).__name__}; give a UNet2DModel of diffusers, or wrap "
            "another with ds.priors.from_callable."
        )
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


def save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write tensors by their names, as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """What `save_tensors` wrote, on the CPU.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except Exception as error:  # the reader has an error class of its own, not exported everywhere
        raise InputError(
            f"{file}: not readable ({error}); copy the prior again, with all its files."
        ) from error
    return tensors
