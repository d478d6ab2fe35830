"""Tiny guided-diffusion networks with random weights, in the format that they are published in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["WORDS", "backbone", "state_of"]

WORDS: dict[str, Any] = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,1",
    "attention_resolutions": "8",
    "num_head_channels": 16,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
    "learn_sigma": True,
    "class_cond": False,
    "noise_schedule": "linear",
    "diffusion_steps": 1000,
    "use_fp16": True,
}
"""The configuration of the network that `backbone` makes."""


def backbone(**changes: Any) -> torch.nn.Module:
    """The network itself; the caller has skipped where azula is not installed."""
    from azula.plugins.adm import make_model

    torch.manual_seed(0)
    options: dict[str, Any] = {
        "image_size": 16,
        "num_channels": 32,
        "num_res_blocks": 1,
        "channel_mult": (1, 1),
        "attention_resolutions": (8,),
        "num_head_channels": 16,
        "resblock_updown": True,
        "use_scale_shift_norm": True,
        "learn_var": True,
    }
    network: torch.nn.Module = make_model(**{**options, **changes}).backbone.eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # some begin at zero, and would hide mistakes
    return network.requires_grad_(False)


def state_of(channels: int = 3, outputs: int = 6, **others: Tensor) -> dict[str, Tensor]:
    """Weights that look like such a network's from outside, for what is refused before building."""
    first, last = torch.zeros(32, channels, 3, 3), torch.zeros(outputs)
    return {"input_blocks.0.0.weight": first, "out.2.bias": last, **others}
