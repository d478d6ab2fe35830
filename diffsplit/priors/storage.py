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

from diffsplit.arguments import are_counts
from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.files import atomic_folder

__all__ = [
    "CONFIG_NAME",
    "described",
    "diffusers_class",
    "first_line",
    "image_sides",
    "read_config",
    "read_json",
    "read_tensors",
    "save_part",
    "save_tensors",
    "write_folder",
]

CONFIG_NAME = "prior.json"
VERSION = 1


def read_json(file: Path, fault: str, advice: str) -> dict[str, Any]:
    """The JSON object in a file, or an InputError with the ``fault`` and the ``advice``."""
    try:
        config = json.loads(file.read_text("utf-8"))
        if not isinstance(config, dict):
            raise TypeError("no JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: {fault} ({error}); {advice}.") from error
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in ``prior.json`` in a folder."""
    writers = "give a folder written by `diffsplit train` or `diffsplit distill`"
    return read_json(folder / CONFIG_NAME, "not a readable prior description", writers)


def first_line(error: Exception) -> str:
    """What an error says, in one line without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def described(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The description of a prior in the format ``kind``, for a ``with`` block that reads it.

    An InputError says that it is unreadable, of another format or version, or incomplete: a key
    that the block asks for is missing, or its value makes no sense.
    """
    config = read_config(folder)
    found, version = config.get("format"), config.get("version")
    if found != kind or version != VERSION:
        raise InputError(
            f"{folder}: format {found!r:.40} version {version!r:.20}; this version reads {kind!r} "
            f"version {VERSION}; update diffsplit or train again."
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

    `described` gives ``config`` back.
    """
    whole = {"format": kind, "version": VERSION, **config}
    with atomic_folder(folder, last=CONFIG_NAME) as temporary:
        yield temporary
        (temporary / CONFIG_NAME).write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


def diffusers_class(name: str) -> Any:
    """A class of diffusers, or a MissingDependencyError where diffusers cannot be imported.

    That happens where an optional library of it, such as torchvision, fits another PyTorch.
    """
    import diffusers

    try:
        return getattr(diffusers, name)
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"diffusers cannot be imported here ({str(error).strip().splitlines()[-1]}); install "
            "the builds of PyTorch and torchvision that belong together, or uninstall torchvision."
        ) from error


def image_sides(unet: Any) -> tuple[int, int]:
    """Height and width of what a diffusers network was trained on, by its configuration."""
    if not hasattr(getattr(unet, "config", None), "sample_size"):
        raise InputError(
            f"the network is a {type(unet).__name__}; give a UNet2DModel of diffusers, or wrap "
            "another with ds.priors.from_callable."
        )
    size = unet.config.sample_size
    sides = size if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not are_counts(*sides):
        raise InputError(
            f"the network's config.json gives {size!r:.40} as the size of its images; set "
            "sample_size to the side that it was trained on."
        )
    return sides[0], sides[1]


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
