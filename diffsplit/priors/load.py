"""One function to load any prior: by name, by path, or from what is already in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.priors.adm import ConfigLike, is_checkpoint, load_adm
from diffsplit.priors.assembled import assembled
from diffsplit.priors.base import Denoiser, LatentModel, Prior
from diffsplit.priors.cards import card_names, model_card
from diffsplit.priors.consistency import ConsistencyPrior, ResidualConsistency
from diffsplit.priors.curve_store import attach_curve
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.priors.hub import snapshot
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.options import apply_options
from diffsplit.priors.patched import PatchedUNet
from diffsplit.priors.published import announced_shape, check_kinds, parts_in_memory, read_parts
from diffsplit.priors.residual import ResidualPrior
from diffsplit.priors.storage import CONFIG_NAME, read_config

__all__ = [
    "HUB_ID",
    "bundled_facts",
    "bundled_priors",
    "load_kind",
    "load_prior",
    "locate_prior",
]

P = TypeVar("P", bound=Prior)
OWN: dict[str, type[LatentPrior] | type[PatchedUNet] | type[GaussianSpectrum]] = {
    LatentPrior.format: LatentPrior,
    ConsistencyPrior.format: ConsistencyPrior,
    EDMPrior.format: EDMPrior,
    ResidualPrior.format: ResidualPrior,
    ResidualConsistency.format: ResidualConsistency,
    GaussianSpectrum.format: GaussianSpectrum,
}
"""The priors that are kept in a folder of our own."""

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


BUNDLE = Path(str(resources.files("diffsplit"))) / "assets" / "priors"


def bundled_priors() -> list[str]:
    """Names of the priors that come with the package."""
    return sorted(p.name for p in BUNDLE.iterdir() if p.is_dir()) if BUNDLE.is_dir() else []


def bundled_facts(name: str) -> dict[str, Any]:
    """What the description of a bundled prior says of its kind, data and license."""
    config = read_config(BUNDLE / name)
    return {"kind": OWN[config["format"]].kind, **config.get("facts", {})}


def locate_prior(name: str) -> Path:
    """Where a named prior is on this machine; what a hub gives is downloaded if it is not here yet.

    Args:
        name: a bundled prior, a published one of `diffsplit.priors.card_names`, or a hub id.

    Raises:
        InputError: no such name, a hub that does not answer, or a file that has to be fetched by
            hand; the message says from where and to what folder.
    """
    if name in bundled_priors():
        return BUNDLE / name
    card = model_card(name) if name in card_names() else None
    if card is not None and card.hub is None:
        return card.checked_path()
    hub = name if card is None or card.hub is None else card.hub
    if not HUB_ID.fullmatch(hub):
        raise InputError(
            f"{name:.200}: no such prior; choose one of `diffsplit priors list`, or give a hub id "
            "of the form organization/model."
        )
    folder = snapshot(hub, lambda described: _check_known(described, None))
    if not any(folder.rglob("*.safetensors")) and not any(folder.rglob("*.bin")):
        raise InputError(
            f"{hub}: the hub has neither safetensors nor .bin weights of it; give another model."
        )
    return folder


@torch.inference_mode(False)  # weights that are read in inference mode never get a gradient
def load_prior(
    source: str | os.PathLike[str] | Prior | tuple[Any, Any] | Any,
    *,
    device: str | torch.device | None = None,
    class_label: int | None = None,
    prompt: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    compile: bool = False,
    config: ConfigLike | None = None,
    revision: str | None = None,
) -> Prior:
    """Load a prior: a bundled name, a folder, a hub id, or a model that is already in memory.

    Args:
        source: one of

            - one of `bundled_priors`, such as ``"cats-64"``, ``"cats-64-consistency"``,
              ``"cats-64-latent"``, ``"faces-256"`` or ``"faces-256-gaussian"``;
            - a folder that ``diffsplit train`` or ``diffsplit distill`` wrote, which comes before
              a bundled prior of the same name;
            - a folder in the diffusers layout, or a hub id ``"organization/model"``, with a
              `UNet2DModel`: a diffusion model, a score network, a rectified flow, a consistency
              model, or with an autoencoder a latent one; or in the layout of Stable Diffusion 1
              and 2, with a text encoder;
            - a checkpoint of guided-diffusion (ADM), ``.pt`` or ``.safetensors``, or a folder with
              one and its ``config.yaml``;
            - one of `diffsplit.priors.card_names`, such as ``"ffhq-256-adm"``: a published model,
              whose file lies where `diffsplit priors pull` says, or that the hub gives;
            - a diffusers pipeline of such models, or a pair ``(network, scheduler)``; its networks
              are shared with the prior, and set to evaluate;
            - a prior, which comes back as it is.
        device: where to compute; by default the CPU, or where a model in memory already is.
        class_label: index of the class of a class-conditional model.
        prompt: what a text-conditional model is told, by default the empty text; there is no
            classifier-free guidance. It needs the optional library transformers.
        shape: of the images ``(C, H, W)`` that it has to know; a model of the hub is refused before
            its weights are downloaded. For other sizes see `Prior.at`.
        dtype: `torch.bfloat16` or `torch.float16` lets the network, of a latent model that of its
            denoiser, compute in half precision where that is safe (autocast), and everything
            around it in that of the images; weights stay as they are. None leaves all as it is.
            A pipeline in memory whose weights are in half precision is used as it is.
        channels_last: keep the weights of that network in the memory layout that many GPUs are
            faster with.
        compile: compile that network with `torch.compile`. That takes a minute or so, once for one
            image and once for more, and needs a C++ compiler.
        config: of a guided-diffusion checkpoint: its arguments in that project's own words, such as
            ``{"image_size": 256, "num_channels": 128}``, or a YAML or JSON file of them.
        revision: of a model of the hub: a branch, a tag or a commit; by default the newest.

    A denoiser that comes without its measured error v(σ) gets the one that `diffsplit calibrate`
    stored on this machine for the same weights, if it did.

    Raises:
        InputError: it is for images of another ``shape``, nothing of that name, it cannot be read,
            a hub that does not answer in two seconds, an object of another kind, a device that
            is not there, a ``dtype`` that it cannot compute in, it cannot be compiled, or an
            argument that it has no use for; of a checkpoint see `diffsplit.priors.adm.load_adm`.
        MissingDependencyError: an optional library that the model needs is not installed.
    """
    place = None if device is None else checked_device(device)
    wanted = _Wanted(class_label, prompt, shape, config, revision)
    if isinstance(source, str | os.PathLike):
        prior = _load_named(os.fspath(source), place or torch.device("cpu"), wanted)
    else:
        wanted.leave_out(type(source).__name__, "config", "revision")
        if isinstance(source, Prior):
            wanted.leave_out(type(source).__name__, "class_label", "prompt")
            prior = source
        else:
            prior = assembled(parts_in_memory(source, prompt), class_label)
    _check_shape(prior.shape, shape)
    prior = prior if place is None else prior.to(place)
    apply_options(prior, dtype=dtype, channels_last=channels_last, compile=compile)
    core = prior.latent if isinstance(prior, LatentModel) else prior
    if isinstance(core, Denoiser) and prior is not source:
        attach_curve(core)
    return prior


@dataclass(frozen=True)
class _Wanted:
    """What a caller of `load_prior` says of the model itself."""

    class_label: int | None
    prompt: str | None
    shape: Sequence[int] | None
    config: ConfigLike | None
    revision: str | None

    def leave_out(self, name: str, *arguments: str) -> None:
        """Raise InputError if one of these arguments was given."""
        for argument in arguments:
            if getattr(self, argument) is not None:
                raise InputError(f"{name:.200}: {_USELESS[argument]}; leave {argument} out.")


_USELESS = {
    "class_label": "the model knows no classes",
    "prompt": "the model is told no text",
    "config": "config is for guided-diffusion checkpoints (.pt, .safetensors or a folder with one)",
    "revision": "only models of the hub have revisions",
}
"""Why an argument does not go with a model."""


def _check_shape(known: Sequence[int] | None, wanted: Sequence[int] | None) -> None:
    """Raise InputError unless the two shapes agree, or one of them is not given."""
    if known is not None and wanted is not None and tuple(known) != tuple(wanted):
        raise InputError(
            f"the prior knows images of shape {tuple(known)}, and {tuple(wanted)} is wanted; load "
            "a prior of that size, or see Prior.at in Python, where its network takes other sizes."
        )


def load_kind(kind: type[P], source: Any, device: str | torch.device | None = None) -> P:
    """`load_prior` where only one kind of model, or one class, will do; else an InputError."""
    prior = load_prior(source, device=device)
    if not isinstance(prior, kind):
        raise InputError(
            f"{source}: is a {prior.kind} ({type(prior).__name__}), and a {kind.kind} "
            f"({kind.__name__}) is needed; give one such as {kind.example}."
        )
    return prior


def _load_named(name: str | bytes, device: torch.device, wanted: _Wanted) -> Prior:
    name, shape, config = os.fsdecode(name), wanted.shape, wanted.config
    if name in card_names() and not os.path.exists(name):  # noqa: PTH110
        card = model_card(name)
        _check_shape((card.channels, card.resolution, card.resolution), shape)
        if card.hub is None:
            name, config = str(card.checked_path()), card.config if config is None else config
        else:
            name = card.hub
    if is_checkpoint(name, config is not None):
        wanted.leave_out(name, "prompt", "revision")
        return load_adm(
            Path(name), config, device, wanted.class_label, lambda known: _check_shape(known, shape)
        )
    wanted.leave_out(name, "config")
    folder = Path(name)
    if name in bundled_priors() and not os.path.isfile(folder / CONFIG_NAME):  # noqa: PTH113
        folder = BUNDLE / name
    if name and os.path.isdir(folder):  # noqa: PTH112 (a path may be too long for pathlib)
        wanted.leave_out(name, "revision")
    elif HUB_ID.fullmatch(name):
        folder = snapshot(name, lambda found: _check_known(found, shape), wanted.revision)
    else:
        raise InputError(
            f"{name:.200}: no such prior; give one of the bundled "
            f"({', '.join(bundled_priors())}), a published one (`diffsplit priors list`), a "
            "folder or a checkpoint of a diffusion model, or a hub id of the form "
            "organization/model."
        )
    if not (folder / CONFIG_NAME).is_file():
        return assembled(read_parts(folder, device, wanted.prompt), wanted.class_label)
    wanted.leave_out(name, "class_label", "prompt")
    kind = read_config(folder).get("format")
    return OWN.get(kind if isinstance(kind, str) else "", EDMPrior).load(folder, device)


def _check_known(folder: Path, shape: Sequence[int] | None) -> None:
    if not (folder / CONFIG_NAME).is_file():
        check_kinds(folder)
        _check_shape(announced_shape(folder), shape)
