"""The networks in a folder in the diffusers layout, whichever kind of file their weights are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.priors.storage import diffusers_class, first_line
from diffsplit.priors.weights import read_weights

__all__ = ["NETWORK", "TEXT_ENCODER", "WeightFiles", "load_part"]

LOADING: dict[str, Any] = {
    "torch_dtype": torch.float32,
    "low_cpu_mem_usage": False,  # the default warns where accelerate is not installed
}
"""How the weights of every model are read."""


class WeightFiles(NamedTuple):
    """Names of the files with the weights of a model, as `glob` and the hub match them.

    A ``.bin`` file is a pickle. It is read as weights alone, which runs nothing in it, and only
    where there is no safetensors file. Those of another precision (``.fp16.``) are left alone.

    Attributes:
        safe: of safetensors files, of one or several.
        pickled: the same for ``.bin`` files.
    """

    safe: tuple[str, str]
    pickled: tuple[str, str]

    def found(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The files of each kind that are in a folder."""
        safe, pickled = ([file for n in names for file in folder.glob(n)] for names in self)
        return safe, sorted(pickled)

    def are_safe(self, folder: Path) -> bool:
        """Whether safetensors are to be read; False where a folder has ``.bin`` files alone.

        These are read here once, so that one with code in it is refused with the reason.

        Raises:
            InputError: a ``.bin`` file is damaged, or holds more than tensors.
        """
        safe, pickled = self.found(folder)
        if not safe:
            for file in pickled:
                read_weights(file)
        return bool(safe) or not pickled


NETWORK = WeightFiles(
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model-*.safetensors"),
    ("diffusion_pytorch_model.bin", "diffusion_pytorch_model-*.bin"),
)
TEXT_ENCODER = WeightFiles(
    ("model.safetensors", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*.bin"),
)


def load_part(kind: str, folder: Path, part: str, device: str | torch.device) -> Any:
    """One model of a folder, in float32, for evaluation alone.

    Args:
        kind: its class in diffusers.
        part: its subfolder; "" for the folder itself.

    Raises:
        InputError: it cannot be read; see also `WeightFiles.are_safe`.
    """
    model_class = diffusers_class(kind)
    safe = NETWORK.are_safe(folder / part)
    try:
        model = model_class.from_pretrained(
            str(folder), subfolder=part or None, use_safetensors=safe, **LOADING
        )
    except Exception as error:  # a stranger's configuration may break a constructor in any way
        raise InputError(
            f"{folder / part}: no readable {kind} ({first_line(error)}); give a folder in the "
            "diffusers layout with its weights."
        ) from error
    return model.eval().requires_grad_(False).to(checked_device(device))
