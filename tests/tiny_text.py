"""A text-conditional latent model in the layout of Stable Diffusion, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_networks import tiny_kl

__all__ = ["tiny_stable_diffusion"]

WIDTH = 16
TOKENS = 12


def tiny_stable_diffusion(folder: Path, scheduler: Any = None, **options: Any) -> Any:
    """A pipeline of 3×16×16 images; the caller has skipped where transformers is not installed.

    Args:
        folder: for the files of the tokenizer.
        scheduler: by default that of Stable Diffusion 1.
        options: of the network.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    files = folder / "made"
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (files / "merges.txt").write_text("#version: 0.2\n")
    names = {"unk_token": words[-1], "pad_token": words[-1], "bos_token": words[-2]}
    tokenizer = CLIPTokenizer(
        str(files / "vocab.json"), str(files / "merges.txt"), eos_token=words[-1], **names
    )
    tokenizer.model_max_length = TOKENS
    torch.manual_seed(0)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        **options,
    )
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipeline = StableDiffusionPipeline(
        vae=tiny_kl(scaling_factor=0.18215),
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval().requires_grad_(False),
        scheduler=scheduler or DDIMScheduler(**betas, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
