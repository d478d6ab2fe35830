"""A class-conditional network with its class chosen: called as an unconditional one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsplit.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["LabeledUNet", "with_label"]


class LabeledUNet(torch.nn.Module):
    """A class-conditional `UNet2DModel` of which every evaluation gets the same class.

    Args:
        unet: the network.
        label: index of the class.
    """

    def __init__(self, unet: UNet2DModel, label: int) -> None:
        super().__init__()
        self.unet, self.label = unet, label
        self.config = unet.config

    @property
    def dtype(self) -> torch.dtype:
        result: torch.dtype = self.unet.dtype
        return result

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        labels = torch.full((len(x),), self.label, device=x.device)
        result: tuple[Tensor] = self.unet(x, timestep, class_labels=labels, return_dict=return_dict)
        return result


def with_label(unet: UNet2DModel, label: int | None) -> UNet2DModel:
    """The network with its class chosen, or itself where it knows no classes.

    Raises:
        InputError: a class is missing, superfluous, or out of range.
    """
    conditional = unet.class_embedding is not None
    classes = unet.config.num_class_embeds
    if conditional and label is None:
        raise InputError(
            f"the model knows {classes or 'several'} classes; give the index of one as class_label."
        )
    if label is None:
        return unet
    if not conditional:
        raise InputError("the model knows no classes; leave class_label out.")
    if label < 0 or (classes is not None and label >= classes):
        raise InputError(f"class {label} does not exist; give one from 0 to {(classes or 0) - 1}.")
    return LabeledUNet(unet, label)
