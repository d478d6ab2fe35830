"""Content hashes of what determines a result: code, weights, images, settings."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.curve_store import curves_folder
from diffsplit.priors.hub import snapshot
from diffsplit.priors.load import BUNDLE, HUB_ID, bundled_priors
from diffsplit.priors.storage import CONFIG_NAME

__all__ = ["hash_of_code", "hash_of_image", "hash_of_prior", "key_of", "version"]

_ROOMS_WITHOUT_RESULTS = {"bench", "cli", "report", "training"}
"""Parts of the package that no result depends on, but for `_FILES_WITH_RESULTS`."""
_FILES_WITH_RESULTS = tuple(
    f"bench/{name}.py" for name in ("compute", "features", "measures", "memory", "methods")
)
_BLOCK = 1 << 20


def key_of(facts: dict[str, Any]) -> str:
    """The hash of facts that JSON can hold; equal facts have equal keys."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def version() -> str:
    """Of the package, as it was installed."""
    try:
        return metadata.version("diffsplit")
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def hash_of_code() -> str:
    """Of this version of the package: of all source files that a result depends on."""
    root, digest = Path(str(resources.files("diffsplit"))), hashlib.blake2b(digest_size=16)
    digest.update(f"{version()} {torch.__version__}".encode())
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in _ROOMS_WITHOUT_RESULTS or name in _FILES_WITH_RESULTS:
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def hash_of_image(pixels: Tensor) -> str:
    """Of the bytes and the shape of an image ``(C, H, W)``."""
    content = pixels.contiguous().numpy().tobytes()
    return hashlib.blake2b(repr(tuple(pixels.shape)).encode() + content, digest_size=16).hexdigest()


def hash_of_prior(name: str) -> str:
    """Of all files of a prior: a bundled name, a folder or a hub id.

    The errors that were measured on this machine (see `diffsplit.calibration`) count as files of
    every prior that is not bundled, since the results of solvers depend on them.

    Raises:
        InputError: there is no such prior, or the hub does not give it.
    """
    folder = Path(name)
    if name in bundled_priors() and not (folder / CONFIG_NAME).is_file():
        folder = BUNDLE / name
    elif not folder.is_dir() and HUB_ID.fullmatch(name):
        folder = snapshot(name, lambda described: None)
    if not folder.is_dir():
        raise InputError(
            f"{name:.200}: no such prior; set priors to a bundled one "
            f"({', '.join(bundled_priors())}), a folder or a hub id."
        )
    curves = curves_folder()
    own = _hash_of_folder(folder.resolve())
    if folder.parent == BUNDLE or not curves.is_dir() or not any(curves.iterdir()):
        return own
    return key_of({"prior": own, "errors": _hash_of_folder(curves.resolve())})


@cache
def _hash_of_folder(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in (".md", ".png"):  # the card and its pictures
            continue
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
