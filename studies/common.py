"""What the studies share: their options and images, and a generator for each image."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from diffsplit.io.images import example_cats, from_uint8, load_images
from diffsplit.noise import seeded

__all__ = ["SHAPE", "add_image_options", "chosen_images", "parser", "streams"]

SHAPE = (3, 64, 64)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a study's options; ``--help`` shows its docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_image_options(parser: argparse.ArgumentParser, images: int) -> None:
    """``--images`` and ``--data``, for `chosen_images`."""
    parser.add_argument("--images", type=int, default=images, help=f"how many (default {images})")
    parser.add_argument(
        "--data", type=Path, help="folder or zip of held-out images (default: the eight bundled)"
    )


def chosen_images(options: argparse.Namespace) -> Tensor:
    """``(n, 3, 64, 64)``: ``--images`` of ``--data``, evenly spread over it."""
    if options.images < 1:
        raise SystemExit("--images is at least 1.")
    data = options.data
    x = example_cats() if data is None else from_uint8(load_images(data, SHAPE[1]))
    return x[:: max(1, len(x) // options.images)][: options.images]


def streams(count: int, purpose: str) -> list[torch.Generator]:
    """A generator an image, so that the batch an image is in does not matter."""
    return [seeded(i, purpose) for i in range(count)]
