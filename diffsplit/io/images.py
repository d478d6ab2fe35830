"""Files and arrays to image batches and back: the only place where a data range is converted.

Inside the library an image batch is a float tensor ``(B, C, H, W)`` on [-1, 1]; a file is 8-bit.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.files import atomic_write

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "example_cats",
    "from_uint8",
    "load_image",
    "load_images",
    "read_rgb",
    "save_image",
    "to_uint8",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 64_000_000
"""The largest image that is decoded; a file that announces more is refused unread."""
MAX_ZIPPED_BYTES = 1 << 28
"""The largest image file that is unpacked from a zip."""


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] floats of any shape to 0…255 bytes, clipped and rounded to nearest."""
    return x.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    """0…255 bytes of any shape to float32 on [-1, 1]."""
    return x.float().div(127.5).sub(1)


def _to_rgb(image: Image.Image, name: str, file_format: str | None) -> Image.Image:
    """8-bit RGB; 16-bit gray is scaled, not clipped, and transparency shows white."""
    if image.mode == "F":
        raise InputError(
            f"{name}: its pixels are floating-point numbers, of no known range; save it with 8 or "
            "16 bits a pixel."
        )
    if image.mode.startswith("I;16") or image.mode == "I":
        gray = np.asarray(image, dtype=np.float64)
        # A PNG has 16 bits at most; elsewhere "I" may be anything, and only a guess can scale it.
        if image.mode == "I" and file_format != "PNG" and not (256 <= gray.max() <= 65535):
            raise InputError(
                f"{name}: its pixels are 32-bit integers up to {gray.max():.0f}, of no known "
                "range; save it with 8 or 16 bits a pixel."
            )
        gray = gray / 257
        image = Image.fromarray(gray.clip(0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_rgb(source: Path | IO[bytes], size: int | None = None, name: str = "") -> Image.Image:
    """Decode one image to RGB; with ``size`` crop the central square and resize it (Lanczos).

    Raises:
        InputError: the file is missing, empty, truncated, no image, larger than `MAX_PIXELS`, or
            of floats or integers whose range nobody knows.
    """
    name = name or str(source)
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
                image = _to_rgb(ImageOps.exif_transpose(file), name, file.format)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name}: far too many pixels; at most {MAX_PIXELS:,} are read; reduce the image first."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(
            f"{name}: not a readable image ({error}); give an intact PNG or JPEG file."
        ) from error
    if size is None:
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _to_bytes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def load_image(path: str | os.PathLike[str], size: int | None = None) -> Tensor:
    """One image file as a batch ``(1, 3, H, W)`` on [-1, 1].

    With ``size`` the central square is resized to ``size``×``size`` pixels (Lanczos).

    Raises:
        InputError: see `read_rgb`.
    """
    return from_uint8(_to_bytes(read_rgb(Path(path), size))[None])


def _is_image_name(path: PurePath) -> bool:
    """Whether a name promises an image, and not the notes that a Mac puts beside each file."""
    notes = path.name.startswith("._") or "__MACOSX" in path.parts
    return path.suffix.lower() in IMAGE_SUFFIXES and not notes


def _sources(path: Path) -> Iterator[tuple[str, Path | IO[bytes]]]:
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


def load_images(path: str | os.PathLike[str], size: int, limit: int | None = None) -> Tensor:
    """Every image of a folder (searched deeply) or a zip, in the order of their names.

    Returns:
        Bytes ``(n, 3, size, size)``: a quarter of the memory of floats; see `from_uint8`.

    Raises:
        InputError: no such folder or zip, no image in it, or one that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder or zip file; give one that holds images.")
    pictures = []
    for name, source in _sources(path):
        pictures.append(_to_bytes(read_rgb(source, size, name)))
        if limit is not None and len(pictures) == limit:
            break
    if not pictures:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{path}: holds no image; files ending in {kinds} are read.")
    return torch.stack(pictures)


def example_cats() -> Tensor:
    """Eight cats that the bundled prior has never seen: ``(8, 3, 64, 64)`` on [-1, 1].

    Source: the test part of AFHQ (Choi et al. 2020, CC BY-NC 4.0); see the README beside them.
    """
    with resources.as_file(resources.files("diffsplit") / "assets" / "cats") as folder:
        return from_uint8(load_images(folder, 64))


def save_image(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write one image ``(C, H, W)`` or ``(1, C, H, W)`` on [-1, 1] as an 8-bit file.

    The suffix of ``path`` says the format, and an existing file is replaced.

    Raises:
        InputError: a batch or another shape, a suffix not among `IMAGE_SUFFIXES`, or no such
            folder.
    """
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(
            f"an image to save has shape (1, H, W) or (3, H, W), not {tuple(image.shape)}; "
            "save the images of a batch one by one, or as one by figures.image_grid(batch, "
            "columns=4)."
        )
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{path}: no known kind of image; end the name in one of {kinds}.")
    array = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(temporary)
