"""Where measured errors v(σ) are kept on this machine, by a hash of the weights.

The folder is ``curves`` of $DIFFSPLIT_HOME, by default ``~/.cache/diffsplit/curves``. The name of a
file begins with a hash of what is known of a prior without its weights, so that the weights are
hashed only where there may be a curve of theirs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.files import atomic_write
from diffsplit.priors.base import Denoiser
from diffsplit.priors.cards import home_folder
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.storage import read_json

__all__ = ["attach_curve", "curves_folder", "error_facts", "store_curve", "stored_curve"]

FAULT, ADVICE = "not a readable error curve", "delete it, and run `diffsplit calibrate` again"
PLAIN = (int, float, str, tuple, type(None))


def curves_folder() -> Path:
    """The folder of measured errors; it may not be there yet."""
    return home_folder() / "curves"


def store_curve(prior: Denoiser, curve: ErrorCurve, facts: dict[str, Any]) -> Path:
    """Keep the error of a prior, so that `load_prior` finds it; an earlier one is replaced.

    Args:
        facts: what it was measured on, kept beside it.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        curves_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{curves_folder()}: cannot be created ({error.strerror}); set DIFFSPLIT_HOME to a "
            "folder that can be written to."
        ) from error
    path = _path(prior)
    table = {"sigma": list(curve.sigma), "mse": list(curve.mse), **facts}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(table, indent=2) + "\n", "utf-8")
    return path


def stored_curve(prior: Denoiser) -> ErrorCurve | None:
    """The error that was stored for a prior of these weights, or None.

    Raises:
        InputError: its file is damaged.
    """
    path = _path_of_stored(prior)
    return None if path is None else _curve_in(path)


def error_facts(prior: Denoiser) -> str:
    """In words for people: what is known of the error of a prior, and what it was measured on.

    Raises:
        InputError: see `stored_curve`.
    """
    if prior.error(1.0) is None:
        return "not measured; `diffsplit calibrate` measures it once"
    path = None if prior.curve is None else _path_of_stored(prior)
    if path is None or prior.curve != _curve_in(path):
        return "known"
    table = read_json(path, FAULT, ADVICE)
    return f"measured on {table.get('images')} {table.get('measured_on')}, in {path}"


def _curve_in(path: Path) -> ErrorCurve:
    table = read_json(path, FAULT, ADVICE)
    try:
        return ErrorCurve(tuple(map(float, table["sigma"])), tuple(map(float, table["mse"])))
    except (LookupError, TypeError, ValueError) as error:  # InputError among them
        raise InputError(f"{path}: {FAULT}; {ADVICE}.") from error


def _path_of_stored(prior: Denoiser) -> Path | None:
    """The file of an error that was stored for a prior of these weights."""
    folder = curves_folder()
    if not prior.networks or not folder.is_dir() or not any(folder.glob(f"{_outline(prior)}-*")):
        return None
    path = _path(prior)
    return path if path.is_file() else None


def attach_curve(prior: Denoiser) -> None:
    """Give a prior the error that was stored for it, if it knows none."""
    if prior.error(1.0) is None:
        prior.curve = stored_curve(prior)


def _path(prior: Denoiser) -> Path:
    return curves_folder() / f"{_outline(prior)}-{_content(prior)}.json"


def _outline(prior: Denoiser) -> str:
    """A hash of everything but the numbers in tensors: class, settings, names and shapes."""
    settings = {
        name: f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in vars(prior).items()
        if isinstance(value, PLAIN) and name[0] != "_" and name not in ("curve", "precision")
    }
    shapes = {name: list(tensor.shape) for name, tensor in _tensors(prior).items()}
    outline = json.dumps([type(prior).__name__, settings, shapes], sort_keys=True)
    return hashlib.sha256(outline.encode()).hexdigest()[:16]


def _content(prior: Denoiser) -> str:
    """A hash of the tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(prior).items()):
        digest.update(f"{name} {tensor.dtype} ".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _tensors(prior: Denoiser) -> dict[str, Tensor]:
    """Weights, buffers and schedules, whatever compiles or holds the networks."""
    own = {name: value for name, value in vars(prior).items() if isinstance(value, Tensor)}
    for i, network in enumerate(prior.networks):
        for name, tensor in network.state_dict().items():
            own[f"{i}.{name.replace('_orig_mod.', '')}"] = tensor
    return own
