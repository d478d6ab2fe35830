"""Training images in as little memory as they take: decoded while they are few, as files if not.

12,400 faces of 256×256 pixels are 200 MB as JPEG files and 2.4 GB decoded, and decoding one takes
two milliseconds where a training step takes a hundred times as long.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.decoding import IMAGE_SUFFIXES, decode, image_files
from diffsplit.io.images import from_uint8

__all__ = ["CompressedImages", "Pictures", "as_floats", "batches", "load_pictures", "portion"]

DECODED_BYTES = 1 << 28
"""Images are held decoded up to this size of them all."""
THREADS = min(8, os.cpu_count() or 1)
READ_TOGETHER = 64


class CompressedImages:
    """Images of one size, each kept as its file or, where that is smaller, decoded.

    It is read like a tensor of bytes ``(n, 3, size, size)``: ``images[2:5]`` and ``images[index]``
    decode these and no others, in several threads.

    Args:
        parts: files in memory, or decoded bytes ``(3, size, size)``.
        names: of the parts, for messages.
        size: side that images are cropped and resized to.
    """

    dtype = torch.uint8

    def __init__(self, parts: Sequence[bytes | Tensor], names: Sequence[str], size: int) -> None:
        self.parts, self.names, self.size = parts, names, size

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.parts), 3, self.size, self.size))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        if not len(chosen):
            return torch.empty(0, *self.shape[1:], dtype=torch.uint8)
        with ThreadPoolExecutor(min(THREADS, len(chosen))) as pool:
            return torch.stack(list(pool.map(self._decoded, chosen)))

    def _decoded(self, i: int) -> Tensor:
        part = self.parts[i]
        if isinstance(part, Tensor):
            return part
        return decode(io.BytesIO(part), self.size, 3, self.names[i])


Pictures = Tensor | CompressedImages
"""Bytes ``(n, C, S, S)``; a tensor may also hold floats, which are latents."""


def portion(images: Pictures, start: int, stop: int) -> Pictures:
    """``images[start:stop]``, with nothing decoded."""
    if isinstance(images, Tensor):
        return images[start:stop]
    return CompressedImages(images.parts[start:stop], images.names[start:stop], images.size)


def as_floats(data: Tensor) -> Tensor:
    """Bytes as images on [-1, 1]; floats as they are."""
    return from_uint8(data) if data.dtype == torch.uint8 else data


def batches(images: Pictures, size: int, limit: int | None = None) -> Iterator[Tensor]:
    """The images as floats, ``size`` at a time; of more than ``limit``, so many evenly spread."""
    step = 1 if limit is None else -(-len(images) // limit)
    for start in range(0, len(images), size * step):
        yield as_floats(images[start : start + size * step : step])


def load_pictures(path: Path, size: int) -> Pictures:
    """Every image of a folder (searched deeply) or a zip, in the order of their names.

    Each is decoded once, so that a damaged one is found at once.

    Args:
        size: images are cropped to a square and resized to this side.

    Raises:
        InputError: no such folder or zip, no image in it, or one that cannot be read.
    """
    decoded: list[Tensor] | None = []
    parts: list[bytes | Tensor] = []
    names: list[str] = []
    files = image_files(path)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := [(name, _contents(file)) for name, file in islice(files, READ_TOGETHER)]:
            pixels = pool.map(lambda f: decode(io.BytesIO(f[1]), size, 3, f[0]), some)
            for (name, data), image in zip(some, pixels, strict=True):
                names.append(name)
                parts.append(data if len(data) < image.numel() else image)
                if decoded is not None:
                    decoded.append(image)
            if decoded is not None and len(decoded) * decoded[0].numel() > DECODED_BYTES:
                decoded = None
    if not parts:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{path}: holds no image; files ending in {kinds} are read.")
    return CompressedImages(parts, names, size) if decoded is None else torch.stack(decoded)


def _contents(file: Path | IO[bytes]) -> bytes:
    try:
        return file.read_bytes() if isinstance(file, Path) else file.read()
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read as an image ({error.strerror}); take it out of the folder."
        ) from error
