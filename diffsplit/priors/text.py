"""The text that a latent model of Stable Diffusion's layout is conditioned on.

The text is embedded once by its CLIP encoder, from the optional library transformers; the encoder
is not kept. The network then answers E[z | z_t, text], without classifier-free guidance, which
would no longer be a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors.conditions import ConditionedUNet
from diffsplit.priors.parts import TEXT_ENCODER
from diffsplit.priors.storage import first_line

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["ENCODER", "TEXT_NETWORK", "check_text_network", "embedded", "read_text", "with_text"]

TEXT_NETWORK = "UNet2DConditionModel"
ENCODER = "clip_text_model"
OTHER_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim",
    "time_cond_proj_dim",
)
"""What networks of other layouts are told beside a text: SDXL, upscalers, LCM."""


def check_text_network(name: str, network: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Raise InputError unless a network is told a CLIP text and nothing else.

    Args:
        name: of the model, for messages.
        network, encoder: configurations; empty where there is none.
    """
    others = [key for key in OTHER_INPUTS if network.get(key) is not None]
    if encoder.get("model_type") != ENCODER:
        fault = f"and its text encoder no {ENCODER}" if encoder else "without a text encoder"
        raise InputError(
            f"{name}: its network is a {TEXT_NETWORK}, {fault}; a prior of that kind needs a "
            "text_encoder and a tokenizer of CLIP, as Stable Diffusion 1 and 2 have."
        )
    if others:
        raise InputError(
            f"{name}: its network is told more than a text ({', '.join(others)}); only the layout "
            "of Stable Diffusion 1 and 2 is supported."
        )


def read_text(folder: Path, prompt: str) -> Tensor:
    """The embedding of a prompt by the ``text_encoder`` and the ``tokenizer`` of a folder.

    Raises:
        InputError: one of them is missing or unreadable.
        MissingDependencyError: transformers is not installed.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"{folder}: a text encoder needs transformers ({first_line(error)}); install it with "
            "pip install 'diffsplit[text]'."
        ) from error
    safe = TEXT_ENCODER.are_safe(folder / "text_encoder")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=safe
        )
    except Exception as error:  # a stranger's configuration may break a constructor in any way
        raise InputError(
            f"{folder}: no readable text_encoder and tokenizer ({first_line(error)}); download the "
            "model again."
        ) from error
    return embedded(encoder.float().eval(), tokenizer, prompt)


@torch.no_grad()
def embedded(encoder: Any, tokenizer: Any, prompt: str) -> Tensor:
    """What a CLIP encoder makes of a prompt ``(tokens, width)``, padded to its full length.

    Raises:
        InputError: the prompt is no text, or longer than the encoder reads.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt is a text, '' for none, not {prompt!r:.40}.")
    length = encoder.config.max_position_embeddings
    if len(tokenizer(prompt).input_ids) > length:
        raise InputError(
            f"the prompt {prompt!r:.40} is longer than the {length} tokens that the text encoder "
            "reads; shorten it."
        )
    tokens = tokenizer(prompt, padding="max_length", max_length=length, return_tensors="pt")
    device = next(encoder.parameters()).device
    use_mask = getattr(encoder.config, "use_attention_mask", False)
    mask = {"attention_mask": tokens.attention_mask.to(device)} if use_mask else {}
    embedding: Tensor = encoder(tokens.input_ids.to(device), **mask)[0][0]
    return embedding


def with_text(unet: Any, embedding: Tensor) -> UNet2DModel:
    """The network with its text chosen.

    Raises:
        InputError: it takes embeddings of another width.
    """
    width = unet.config.cross_attention_dim
    if width != embedding.shape[-1]:
        raise InputError(
            f"the network takes texts of width {width} and the encoder makes "
            f"{embedding.shape[-1]}; they do not belong together."
        )
    device = next(unet.parameters()).device
    return ConditionedUNet(unet, encoder_hidden_states=embedding.to(device))
