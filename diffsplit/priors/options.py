"""How a prior computes: precision, memory layout, compilation; applied after it was loaded."""

from __future__ import annotations

import torch
from torch import nn

from diffsplit.errors import InputError
from diffsplit.priors.base import ConsistencyModel, Denoiser, LatentModel, Prior
from diffsplit.priors.network import NetworkPrior
from diffsplit.priors.patched import PatchedUNet
from diffsplit.priors.precision import HALF
from diffsplit.priors.storage import first_line

__all__ = ["apply_options"]


def apply_options(
    prior: Prior, *, dtype: torch.dtype | None, channels_last: bool, compile: bool
) -> None:
    """Set how the network of a prior computes, of a latent model that of its denoiser.

    See `diffsplit.priors.load_prior`.

    Raises:
        InputError: it has no network that could do so, another dtype, or it cannot be compiled.
    """
    core = prior.latent if isinstance(prior, LatentModel) else prior
    if dtype is not None:
        _set_precision(core, dtype)
    if channels_last:
        for network in _networks(core, "channels_last"):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        _compile(core)


def _networks(prior: Prior, option: str) -> tuple[nn.Module, ...]:
    if not prior.networks:
        raise InputError(
            f"a {type(prior).__name__} has no network, and {option} is for networks; leave it out."
        )
    return prior.networks


def _set_precision(prior: Prior, dtype: torch.dtype) -> None:
    if dtype not in HALF or not isinstance(prior, PatchedUNet | NetworkPrior):
        raise InputError(
            f"half precision ({dtype}) of a {type(prior).__name__}: it is torch.bfloat16 or "
            "torch.float16, and for networks that were loaded; leave it out."
        )
    prior.precision = dtype


@torch.no_grad()
def _compile(prior: Prior) -> None:
    """Compile the networks, and evaluate one image, which shows whether it can be."""
    networks = _networks(prior, "compile")
    for network in networks:
        network.compile()
    x = torch.zeros((1, *prior.shape), device=prior.device)
    try:
        if isinstance(prior, Denoiser):
            prior.denoise(x, 1.0)
        elif isinstance(prior, ConsistencyModel):
            prior.consistency(x, 1.0)
    except Exception as error:  # the compiler may fail in any way
        for network in networks:
            network._compiled_call_impl = None
        raise InputError(
            f"the network cannot be compiled here ({first_line(error)}); install a C++ compiler, "
            "or leave compile out."
        ) from error
