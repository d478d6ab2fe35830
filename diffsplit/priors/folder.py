"""The folder of a prior of our own: models in the diffusers layout, and ``prior.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.io.files import atomic_folder

__all__ = ["CONFIG_NAME", "described", "read_config", "write_folder"]

CONFIG_NAME = "prior.json"
VERSION = 1


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
