"""The model hub: asked once with a deadline, since a download retries for minutes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsplit.errors import InputError
from diffsplit.priors.parts import NETWORK, TEXT_ENCODER
from diffsplit.priors.storage import first_line

__all__ = ["snapshot"]

DEADLINE = 1.2
"""Seconds in which the hub has to answer; HF_HUB_ETAG_TIMEOUT sets another number.

The first call also imports the client of the hub, which takes half a second."""
DESCRIPTIONS = ["*.json"]
WEIGHTS = [f"*{name}" for name in NETWORK.safe]
WEIGHTS += [*(f"text_encoder/{name}" for name in TEXT_ENCODER.safe), "tokenizer/*"]
PARTS = {**dict.fromkeys(("", "unet", "vae", "vqvae"), NETWORK), "text_encoder": TEXT_ENCODER}
"""Where weights are that may be in ``.bin`` files alone, and what these are called."""


def snapshot(name: str, check: Callable[[Path], None], revision: str | None = None) -> Path:
    """The folder that a model of the hub was downloaded to, now or earlier.

    Where the hub does not answer, or HF_HUB_OFFLINE is set, an earlier download is used. Where
    there is none, an InputError gives the reason.

    Args:
        name: ``organization/model``.
        check: is given the folder before the weights are downloaded, with all JSON files in it.
        revision: a branch, a tag or a commit; by default the newest.
    """
    from huggingface_hub import constants, snapshot_download

    version: dict[str, Any] = {} if revision is None else {"revision": revision}
    reason = _failure(name, version)
    here: dict[str, Any] = {"local_files_only": reason is not None, **version}
    try:
        check(Path(snapshot_download(name, allow_patterns=DESCRIPTIONS, **here)))
        folder = Path(snapshot_download(name, allow_patterns=DESCRIPTIONS + WEIGHTS, **here))
        if pickled := _pickled(folder):
            snapshot_download(name, allow_patterns=pickled, **here)
        return folder
    except InputError:
        raise
    except Exception as error:  # libraries of several versions raise errors of many kinds
        reason = reason or f"the download failed: {first_line(error)}"
        model = name if revision is None else f"{name} at revision {revision}"
        raise InputError(
            f"{model}: neither a bundled prior nor an existing folder, and the model hub did not "
            f"give it ({reason}); check the name and the network, or copy the folder "
            f"models--{name.replace('/', '--')} of a machine that has downloaded it into "
            f"{constants.HF_HUB_CACHE}, or give the path of a downloaded folder."
        ) from error


def _pickled(folder: Path) -> list[str]:
    """Patterns of the files that hold the weights of parts without safetensors ones."""
    patterns = []
    for part, files in PARTS.items():
        safe, _ = files.found(folder / part)
        if not safe and (folder / part / "config.json").is_file():
            patterns += [f"{part}/{name}".lstrip("/") for name in files.pickled]
    return patterns


def _failure(name: str, version: dict[str, Any]) -> str | None:
    """Why the hub does not give a model; None if it does.

    A thread asks, because neither a name server nor a proxy respects the timeout of a request.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        deadline = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", DEADLINE))
    except ValueError:
        deadline = DEADLINE
    answers: list[str | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=deadline, **version)
            answers.append(None)
        except HfHubHTTPError as error:
            answers.append(first_line(error))
        except Exception as error:
            answers.append(f"it could not be reached: {first_line(error)}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(deadline)
    return answers[0] if answers else f"it could not be reached: no answer in {deadline:g} s"
