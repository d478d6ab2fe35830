"""Checkpoints of guided-diffusion (ADM): the networks of DPS and of OpenAI, seen in σ-space.

The network is that of azula, an optional library. It predicts ε at integer timesteps of a
variance-preserving schedule, as a diffusers model does, and `DiffusersPrior` has the mathematics.

Source: Dhariwal & Nichol 2021.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors.adm_config import ADMConfig, adm_config
from diffsplit.priors.conditions import with_label
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.storage import CONFIG_NAME, first_line
from diffsplit.priors.weights import SUFFIXES, read_weights

__all__ = ["ADMPrior", "ConfigLike", "is_checkpoint", "load_adm"]

ConfigLike = Mapping[str, Any] | str | os.PathLike[str] | ADMConfig
SHARED_WORDS = {
    "image_size",
    "num_channels",
    "num_res_blocks",
    "num_heads",
    "num_heads_upsample",
    "num_head_channels",
    "attention_resolutions",
    "use_scale_shift_norm",
    "resblock_updown",
    "use_new_attention_order",
}
"""What azula calls by the same names."""
OTHERS = (CONFIG_NAME, "model_index.json", "unet", "scheduler")
"""What marks a folder as one of another layout."""
CONFIGS = ("config.yaml", "config.yml", "config.json")
FIRST, LAST, LABELS = "input_blocks.0.0.weight", "out.2.bias", "label_emb.weight"
"""Where a state dict tells the number of channels, of outputs and of classes."""


class ADMNetwork(nn.Module):
    """A guided-diffusion network that is called like a `UNet2DModel`."""

    def __init__(self, unet: nn.Module, config: ADMConfig, channels: int, classes: int | None):
        super().__init__()
        self.unet, self.time_scale = unet, config.time_scale
        self.config = SimpleNamespace(
            in_channels=channels,
            sample_size=config.image_size,
            num_class_embeds=classes,
            block_out_channels=[config.num_channels * factor for factor in config.multipliers],
        )

    @property
    def class_embedding(self) -> nn.Module | None:
        return getattr(self.unet, "label_emb", None)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        return (self.unet(x, self.time_scale * timestep, y=class_labels),)


class ADMPrior(DiffusersPrior):
    """A guided-diffusion network; see `DiffusersPrior` for its arguments and attributes."""


def is_checkpoint(path: str, configured: bool) -> bool:
    """Whether a path is that of weights in a file, or of a folder with a guided-diffusion network.

    Args:
        configured: a configuration is given for it.
    """
    if not os.path.isdir(path):  # noqa: PTH112 (a path may be too long for pathlib)
        return path.endswith(SUFFIXES) or os.path.isfile(path)  # noqa: PTH113
    folder = Path(path)
    if any((folder / name).exists() for name in OTHERS):
        return False
    found = _config_in(folder)
    if found is not None and found.suffix == ".json":  # diffusers writes one as well
        try:
            return configured or "image_size" in json.loads(found.read_text("utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return configured
    return configured or found is not None or (bool(_weights_in(folder)) and _is_flat(folder))


def _config_in(folder: Path) -> Path | None:
    return next((folder / name for name in CONFIGS if (folder / name).is_file()), None)


def _weights_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _is_flat(folder: Path) -> bool:
    return not any(p.is_dir() or p.suffix == ".json" for p in folder.iterdir())


def load_adm(
    path: Path,
    config: ConfigLike | None,
    device: torch.device,
    class_label: int | None,
    check: Callable[[tuple[int, ...]], None],
) -> ADMPrior:
    """A guided-diffusion network from its weights and its configuration.

    Args:
        path: the weights, or a folder with them and a ``config.yaml`` or ``config.json``.
        config: in guided-diffusion's own words, or a YAML or JSON file of them; by default what
            lies in the folder, or the entry ``config`` of the metadata of a safetensors file.
        class_label: of a class-conditional network.
        check: is given the shape of the images before the network is built.

    Raises:
        InputError: see `adm_config` and `read_weights`; no configuration, or weights that do not
            fit it; a class-conditional network and no class, or the reverse.
        MissingDependencyError: azula is not installed.
    """
    file = path
    if path.is_dir():
        config = _config_in(path) if config is None else config
        files = _weights_in(path)
        if len(files) != 1:
            raise InputError(
                f"{path}: holds {len(files)} files of weights; give the path of the one to load."
            )
        file = files[0]
    words = None if config is None else adm_config(config)
    state, metadata = read_weights(file)
    if words is None:
        words = _config_of(file, metadata)
    channels, classes = _counts(file, state, words)
    check((channels, words.image_size, words.image_size))
    unet = _built(file, words, channels, classes)
    _check_fit(file, unet.state_dict(), state)
    network: Any = ADMNetwork(unet, words, channels, classes)
    try:
        prior = ADMPrior(with_label(network, class_label), words.alphas_cumprod(), words.prediction)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    unet.to_empty(device=device).load_state_dict(state)  # last, since it takes long
    unet.eval().requires_grad_(False)
    return prior


def _config_of(file: Path, metadata: Mapping[str, str]) -> ADMConfig:
    """The configuration in the metadata of a safetensors file."""
    try:
        return adm_config(json.loads(metadata["config"]))
    except (KeyError, ValueError, RecursionError) as error:
        reason = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(
            f"{file}: comes without a configuration{reason}; give config, a dictionary or a YAML "
            "file in guided-diffusion's own words (image_size, num_channels, …), or put it as "
            "config.yaml beside the weights and give the folder."
        ) from error


def _counts(file: Path, state: Mapping[str, Tensor], config: ADMConfig) -> tuple[int, int | None]:
    """How many channels images have, and how many classes there are; checked by the words."""
    if FIRST not in state or LAST not in state or state[FIRST].ndim != 4:
        raise InputError(
            f"{file}: holds no weights of a guided-diffusion network (it begins with "
            f"{', '.join(list(state)[:2]) or 'nothing'}); wrap any other network with "
            "ds.priors.from_callable."
        )
    channels, outputs = state[FIRST].shape[1], state[LAST].shape[0]
    if outputs != channels * (1 + config.learn_sigma):
        raise InputError(
            f"{file}: a network from {channels} to {outputs} channels does not fit learn_sigma "
            f"{config.learn_sigma}; set learn_sigma to {not config.learn_sigma}, or give another "
            "checkpoint."
        )
    if (LABELS in state) != config.class_cond:
        raise InputError(
            f"{file}: the network {'knows' if LABELS in state else 'has no'} classes; set "
            f"class_cond to {not config.class_cond}."
        )
    return channels, state[LABELS].shape[0] if config.class_cond else None


def _built(file: Path, config: ADMConfig, channels: int, classes: int | None) -> nn.Module:
    """The network without memory for its weights."""
    try:
        from azula.plugins.adm import make_model
    except ImportError as error:
        raise MissingDependencyError(
            f"{file}: guided-diffusion networks need azula ({first_line(error)}); install it with "
            "pip install 'diffsplit[azula]'."
        ) from error
    try:
        with torch.device("meta"):
            unet: nn.Module = make_model(
                **config.model_dump(include=SHARED_WORDS),
                channel_mult=config.multipliers,
                learn_var=config.learn_sigma,
                image_channels=channels,
                num_classes=classes,
            ).backbone
    except Exception as error:  # a configuration may break a constructor in any way
        raise InputError(
            f"{file}: no network can be built of its configuration ({first_line(error)}); give the "
            "one that it was trained with."
        ) from error
    return unet


def _check_fit(file: Path, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise InputError unless the weights have the names and shapes that the network wants."""
    differ = [n for n, t in wanted.items() if n in state and t.shape != state[n].shape]
    missing, extra = sorted(wanted.keys() - state), sorted(state.keys() - wanted)
    if differ:
        n = differ[0]
        fault = f"{n} is {tuple(state[n].shape)} and would be {tuple(wanted[n].shape)}"
    elif missing or extra:
        fault = f"{(missing or extra)[0]} is {'missing' if missing else 'not part of it'}"
    else:
        return
    count = len(differ) + len(missing) + len(extra)
    raise InputError(
        f"{file}: its weights do not fit the configuration ({fault}; {count} such differences); "
        "give the configuration that they were trained with."
    )
