"""One image file to 8-bit pixels, whatever its mode, and the images of a folder or a zip."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.files import path_of
from diffsplit.io.lmdb_files import is_lmdb, lmdb_files

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "MAX_SIDE", "decode", "image_files", "shorter_side"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000
"""The largest image that is decoded; a file that announces more is refused unread."""
MAX_SIDE = 8000
"""The largest side that an image is resized to: `MAX_PIXELS` in a square."""
MAX_ZIPPED_BYTES = 1 << 28
"""The largest image file that is unpacked from a zip."""


def decode(
    source: Path | IO[bytes],
    size: int | tuple[int, int] | None = None,
    channels: int | None = 3,
    name: str = "",
) -> Tensor:
    """The pixels of one image file, as bytes ``(C, H, W)``; see `diffsplit.io.images.load_image`.

    Messages call the source ``name``.
    """
    name = name or str(source)
    sides = None if size is None else _sides(size)
    if channels not in (1, 3, None):
        raise InputError(f"an image is read with 1 or 3 channels, not {channels!r:.40}.")
    if isinstance(source, Path) and not source.is_file():
        raise InputError(f"{name}: no such image file; give the path of a PNG or JPEG file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked below, damage raises
            with Image.open(source) as file:
                width, height = file.size
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{name}: {width}×{height} pixels; at most {MAX_PIXELS:,} are read; "
                        "reduce the image first."
                    )
                gray = file.mode in ("1", "L", "LA", "La") or file.mode.startswith("I")
                image = _to_rgb(ImageOps.exif_transpose(file), name, file.format)
    except InputError:
        raise
    except Exception as error:  # a decoder may fail on a stranger's bytes in any way
        raise InputError(
            f"{name}: not a readable image ({error}); give an intact PNG or JPEG file."
        ) from error
    if channels == 1 or (channels is None and gray):
        image = image.convert("L")
    if sides is not None:
        height, width = sides
        across = max(1, min(image.width, round(image.height * width / height)))
        down = max(1, min(image.height, round(image.width * height / width)))
        left, top = (image.width - across) // 2, (image.height - down) // 2
        box = (left, top, left + across, top + down)
        image = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    pixels = np.array(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width from the side of a square or from a pair of them."""
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in pair):
        raise InputError(f"the size of an image is from 1 to {MAX_SIDE} pixels, not {size!r:.40}.")
    return pair


def _to_rgb(image: Image.Image, name: str, file_format: str | None) -> Image.Image:
    """8-bit RGB; 16-bit gray is scaled, not clipped, and transparency shows white."""
    if image.mode == "F" or image.mode.startswith("I"):
        gray = np.asarray(image, dtype=np.float64)
        # A PNG has 16 bits at most; elsewhere "I" may be anything, and only a guess can scale it.
        unknown = image.mode == "I" and file_format != "PNG" and not 256 <= gray.max() <= 65535
        if image.mode == "F" or unknown:
            raise InputError(
                f"{name}: its pixels are {'floats' if image.mode == 'F' else '32-bit integers'} up "
                f"to {gray.max():.4g}, of no known range; save it with 8 or 16 bits a pixel."
            )
        image = Image.fromarray((gray / 257).clip(0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def image_files(path: str | os.PathLike[str]) -> Iterator[tuple[str, Path | IO[bytes]]]:
    """The image files of a folder (searched deeply), a zip or an LMDB database, in their order.

    Each comes with its name.
    """
    path = path_of(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder or zip file; give one that holds images.")
    if is_lmdb(path):
        yield from lmdb_files(path)
        return
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if _is_image_name(file.relative_to(path)):
                yield str(file), file
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if _is_image_name(PurePosixPath(entry.filename)):
                    if entry.file_size > MAX_ZIPPED_BYTES:
                        raise InputError(
                            f"{path}:{entry.filename}: {entry.file_size:,} bytes; images in a zip "
                            f"have at most {MAX_ZIPPED_BYTES:,}."
                        )
                    yield f"{path}:{entry.filename}", io.BytesIO(archive.read(entry))
    # RuntimeError: encrypted; NotImplementedError: an unknown compression.
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: neither a folder nor a readable zip file; give a folder or a zip of images."
        ) from error


def shorter_side(source: Path | IO[bytes], name: str) -> int:
    """Of an image file, in pixels, without decoding it; a stream is left at its start.

    Raises:
        InputError: it is no image.
    """
    try:
        with Image.open(source) as file:
            return min(file.size)
    except Exception as error:  # as in `decode`
        raise InputError(
            f"{name}: not a readable image ({error}); give an intact PNG or JPEG file."
        ) from error
    finally:
        if not isinstance(source, Path):
            source.seek(0)


def _is_image_name(path: PurePath) -> bool:
    """Whether a name promises an image, and not the notes that a Mac puts beside each file."""
    notes = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in IMAGE_SUFFIXES and not notes
