"""How a guided-diffusion (ADM) network was built and trained, in that project's own words.

The names and defaults are those of its command line (Dhariwal & Nichol 2021); DPS and others keep
them in a YAML file. Lists may be written as there: ``attention_resolutions: "32,16,8"``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["ADMConfig", "adm_config", "first_fault"]

MULTIPLIERS: dict[int, tuple[float, ...]] = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
"""The channel multipliers of a size where ``channel_mult`` is left empty."""


def _numbers(value: Any) -> Any:
    """Numbers that are written as ``"32,16,8"`` or as one number, as a list."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Count = Annotated[int, Field(ge=1, le=10**5)]
Heads = Annotated[int, Field(ge=-1, le=10**5)]


class ADMConfig(BaseModel):
    """Arguments of a guided-diffusion network and of its noise schedule.

    Attributes:
        image_size: side of the images in pixels; all others have that project's defaults.
        attention_resolutions: sides of the feature maps with attention, in pixels.
        channel_mult: one multiplier of ``num_channels`` a level; empty for those of the size.
        noise_schedule, diffusion_steps: the betas, see `alphas_cumprod`.
        predict_xstart: the network answers with the clean image instead of the noise.
        rescale_timesteps: it is given timesteps on 0 … 1000 whatever ``diffusion_steps`` is.
        use_fp16, use_checkpoint, dropout, use_kl, rescale_learned_sigmas, timestep_respacing,
        model_path: of training and sampling; without effect here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    image_size: Count
    num_channels: Count = 128
    num_res_blocks: Count = 2
    num_heads: Count = 4
    num_heads_upsample: Heads = -1
    num_head_channels: Heads = -1
    attention_resolutions: Annotated[tuple[Count, ...], BeforeValidator(_numbers)] = (16, 8)
    channel_mult: Annotated[
        tuple[Annotated[float, Field(gt=0, le=64)], ...], BeforeValidator(_numbers)
    ] = ()
    class_cond: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: Annotated[int, Field(ge=2, le=10**5)] = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    predict_xstart: bool = False
    rescale_timesteps: bool = False

    dropout: float = 0.0
    use_fp16: bool = False
    use_checkpoint: bool = False
    use_kl: bool = False
    rescale_learned_sigmas: bool = False
    timestep_respacing: Any = ""
    model_path: Any = None

    @model_validator(mode="after")
    def _sizes_that_halve(self) -> ADMConfig:
        if not self.channel_mult and self.image_size not in MULTIPLIERS:
            raise ValueError(f"give channel_mult, which has no default at {self.image_size} pixels")
        halvings = len(self.multipliers) - 1
        if self.image_size % 2**halvings:
            raise ValueError(
                f"image_size {self.image_size} cannot be halved {halvings} times, as "
                f"{halvings + 1} channel multipliers want"
            )
        return self

    @property
    def multipliers(self) -> tuple[float, ...]:
        """One multiplier of ``num_channels`` for each level."""
        return self.channel_mult or MULTIPLIERS[self.image_size]

    @property
    def prediction(self) -> str:
        """What the network predicts, in the words of diffusers."""
        return "sample" if self.predict_xstart else "epsilon"

    @property
    def time_scale(self) -> float:
        """What an integer timestep is multiplied with for the network."""
        return 1000 / self.diffusion_steps if self.rescale_timesteps else 1.0

    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t for t = 0 … T − 1, float64 ``(T,)``.

        "linear": β from 0.1/T to 20/T, evenly spaced (Ho et al. 2020, scaled to T steps).
        "cosine": ᾱ(u) = cos²(π/2 · (u + 0.008)/1.008), β at most 0.999 (Nichol & Dhariwal 2021,
        Eq. 17).
        """
        steps = self.diffusion_steps
        if self.noise_schedule == "linear":
            betas = torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)
        else:
            u = torch.arange(steps + 1, dtype=torch.float64) / steps
            kept = ((u + 0.008) / 1.008 * math.pi / 2).cos().square()
            betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
        return (1 - betas).cumprod(0)


def adm_config(source: Mapping[str, Any] | str | os.PathLike[str] | ADMConfig) -> ADMConfig:
    """A configuration from a mapping, or from a YAML or JSON file.

    Raises:
        InputError: no such file, it is no mapping, or an entry of it is unknown or makes no sense.
    """
    if isinstance(source, ADMConfig):
        return source
    name, values = "config", source
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        try:
            values = yaml.safe_load(Path(source).read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{name}: not a readable configuration ({reason}); give a YAML or JSON file, or a "
                "dictionary, in guided-diffusion's own words."
            ) from error
    if not isinstance(values, Mapping):
        raise InputError(
            f"{name}: is a {type(values).__name__} and not a mapping; give guided-diffusion's own "
            "words, such as {'image_size': 256, 'num_channels': 128}."
        )
    try:
        return ADMConfig.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise InputError(f"{name}: {first_fault(error, ADMConfig)}.") from error


def first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the first field that is, in a few words."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"] if isinstance(part, int | str))
    if fault["type"] == "missing":
        return f"{field} is missing"
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(field, model.model_fields, 1)
        return f"there is no entry {field!r:.60}; {f'write {near[0]}' if near else 'leave it out'}"
    if fault["type"] == "value_error":
        return str(fault["msg"]).removeprefix("Value error, ")
    wanted = str(fault["msg"]).partition(",")[0].replace("Input", field)
    return f"{wanted}, not {fault['input']!r:.40}"
