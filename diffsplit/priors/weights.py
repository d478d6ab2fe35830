"""The weights in a file that somebody else wrote; nothing in it is ever run."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.storage import first_line

__all__ = ["SUFFIXES", "check_hash", "read_weights"]

SAFE = ".safetensors"
PICKLES = (".pkl", ".pickle")
SUFFIXES = (SAFE, ".pt", ".pth", ".ckpt", ".bin", *PICKLES)
"""The endings of files with weights."""
CONVERT = "where you trust it, convert it once to safetensors as docs/checkpoints.md shows"


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict on the CPU, mapped where the format allows it, and the metadata.

    Args:
        file: safetensors, or what ``torch.save(network.state_dict(), file)`` wrote.

    Raises:
        InputError: there is no such file, it cannot be read, it holds something else, or it is a
            pickle with more than tensors in it, which could run code.
    """
    if file.suffix.lower() in PICKLES:
        raise InputError(f"{file}: a pickle can run code and is not loaded; {CONVERT}.")
    if not file.is_file():
        raise InputError(
            f"{file}: no such file; give the path of a checkpoint, ending in .pt or {SAFE}."
        )
    try:
        if file.suffix.lower() == SAFE:
            with safe_open(file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                return tensors, opened.metadata() or {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unusual pickle, which is read or refused
            mapped = zipfile.is_zipfile(file)
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:  # its text advises to load it all the same
        raise InputError(
            f"{file}: not a file of weights alone but a pickle that could run code, or damaged, "
            f"and not loaded; download it again, or {CONVERT}."
        ) from error
    except Exception as error:  # the readers have error classes of their own, not exported
        raise InputError(
            f"{file}: not a readable checkpoint ({first_line(error)}); download it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        held = ", ".join(map(str, list(state)[:4])) if isinstance(state, dict) else type(state)
        raise InputError(
            f"{file}: holds more than the weights of one network ({held!s:.80}); save its state "
            "dict alone."
        )
    return state, {}


def check_hash(file: Path, sha256: str) -> None:
    """Raise InputError unless the content of a file has this SHA-256, in hexadecimal digits."""
    with file.open("rb") as opened:
        found = hashlib.sha256()
        while block := opened.read(1 << 20):
            found.update(block)
    if found.hexdigest() != sha256:
        raise InputError(
            f"{file}: is not the published file (its SHA-256 begins with "
            f"{found.hexdigest()[:12]} and not with {sha256[:12]}); download it again."
        )
