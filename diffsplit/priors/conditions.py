"""Networks that are told more than a noisy image: a class, or the embedding of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["ConditionedUNet", "with_label"]


class ConditionedUNet(torch.nn.Module):
    """A network of which every evaluation gets the same conditions.

    Args:
        unet: the network.
        conditions: what each image gets, by the name of the argument; without the batch dimension.
    """

    def __init__(self, unet: Any, **conditions: Tensor) -> None:
        super().__init__()
        self.unet, self.config, self.names = unet, unet.config, tuple(conditions)
        for name, value in conditions.items():
            self.register_buffer(name, value)

    @property
    def dtype(self) -> torch.dtype:
        result: torch.dtype = self.unet.dtype
        return result

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        conditions = {}
        for name in self.names:
            value = self.get_buffer(name)
            value = value.to(x.dtype) if value.is_floating_point() else value
            conditions[name] = value.expand(len(x), *value.shape)
        result: tuple[Tensor] = self.unet(x, timestep, return_dict=return_dict, **conditions)
        return result


def with_label(unet: UNet2DModel, label: int | None) -> UNet2DModel:
    """The network with its class chosen, or itself where it knows no classes."""
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
    if not isinstance(label, int) or not 0 <= label < (classes or label + 1):
        raise InputError(f"class {label} does not exist; give one from 0 to {(classes or 0) - 1}.")
    return ConditionedUNet(unet, class_labels=torch.tensor(label))
