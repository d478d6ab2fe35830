"""Files and arrays to image batches and back: the only place where a data range is converted.

Inside the library an image batch is a float tensor ``(B, C, H, W)`` on [-1, 1]; a file is 8-bit.
"""

from __future__ import annotations

import math
import os
from importlib import resources
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffsplit.arguments import FAR_OUTSIDE, kind_of
from diffsplit.errors import InputError
from diffsplit.io.decoding import IMAGE_SUFFIXES, MAX_PIXELS, decode, image_files
from diffsplit.io.files import atomic_write, path_of

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "example_cats",
    "example_face",
    "from_numpy",
    "from_uint8",
    "load_image",
    "load_images",
    "save_image",
    "to_uint8",
]

_KINDS = ", ".join(sorted(IMAGE_SUFFIXES))


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] floats of any shape to 0…255 bytes, clipped and rounded to nearest.

    Raises:
        InputError: no tensor of floats, NaN or infinity, or a magnitude above 8: not an image on
            [-1, 1].
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"an image is a tensor of floats on [-1, 1], not {kind_of(x)}; convert bytes with "
            "ds.images.from_uint8(x), and a NumPy array with ds.images.from_numpy(x)."
        )
    x = x.detach().float()
    peak = float(x.abs().max()) if x.numel() else 0.0
    if not math.isfinite(peak):
        raise InputError("the image holds NaN or infinity; find out what computed them.")
    if peak > FAR_OUTSIDE:
        raise InputError(
            f"the image reaches ±{peak:.4g}, far outside [-1, 1]; convert bytes with "
            "ds.images.from_uint8(x.to(torch.uint8)), or show a signal with ds.plots.stretch(x)."
        )
    return x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    """0…255 bytes of any shape to float32 on [-1, 1].

    Raises:
        InputError: ``x`` is no tensor of bytes.
    """
    if not isinstance(x, Tensor) or x.dtype != torch.uint8:
        raise InputError(
            f"from_uint8 takes a tensor of bytes (torch.uint8), not {kind_of(x)}; convert a "
            "NumPy array with ds.images.from_numpy(x)."
        )
    return x.float().div(127.5).sub(1)


def from_numpy(array: NDArray[Any], value_range: tuple[float, float] | None = None) -> Tensor:
    """Images as NumPy programs keep them, to a batch ``(B, C, H, W)``, float32 on [-1, 1].

    Args:
        array: ``(H, W)``, ``(H, W, C)`` or ``(B, H, W, C)``, with C = 1 or C = 3 (RGB).
        value_range: the values of black and white. Bytes (uint8) have (0, 255). For every other
            dtype it must be given, such as (0, 1), because the values do not tell [0, 1] from
            [-1, 1].

    Raises:
        InputError: another type or shape, no ``value_range`` where it is needed, or values outside
            of it.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"from_numpy takes a NumPy array, not {type(array).__name__}; np.asarray makes one of "
            "an RGB Pillow image, for example."
        )
    batch = array[..., None] if array.ndim == 2 else array
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[-1] not in (1, 3) or batch.size == 0:
        raise InputError(
            "NumPy images have shape (H, W), (H, W, C) or (B, H, W, C) with 1 or 3 channels, not "
            f"{array.shape}; drop an alpha channel, and move channels to the end."
        )
    if array.dtype == np.uint8 and value_range is None:
        value_range = (0, 255)
    if value_range is None or array.dtype.kind not in "buif":
        raise InputError(
            f"{array.dtype} does not tell what is black and what is white; give value_range=(0, 1)"
            ", for example, or an array of uint8."
        )
    try:
        black, white = (float(value) for value in value_range)
    except (TypeError, ValueError) as error:
        raise InputError("value_range is a pair of numbers, such as (0, 1).") from error
    values = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
    x = (values.permute(0, 3, 1, 2) - black).div((white - black) / 2 or math.nan).sub(1)
    if not bool((x.abs() <= 1 + 1e-4).all()):
        low, high = float(values.min()), float(values.max())
        raise InputError(
            f"the values go from {low:.4g} to {high:.4g}, outside value_range=({black}, {white}); "
            "give the values of black and white."
        )
    return x.clamp(-1, 1).contiguous()


def load_image(
    path: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    channels: int | None = 3,
) -> Tensor:
    """One image file as a batch ``(1, C, H, W)`` on [-1, 1].

    The orientation that EXIF gives is respected. With ``size`` the central square is resized to
    ``size``×``size`` pixels (Lanczos), with a pair (height, width) the central part of their
    proportions.

    Args:
        size: side of a square in pixels, or (height, width); None leaves the image as it is.
        channels: 3 for RGB; 1 for the luma 0.299 R + 0.587 G + 0.114 B (Rec. 601); None for what
            the file has, 1 if it is gray and 3 if it is not.

    Raises:
        InputError: the file is missing or damaged, larger than `MAX_PIXELS`, or of floats or
            integers whose range is not known; or a bad argument.
    """
    return from_uint8(decode(path_of(path), size, channels)[None])


def load_images(
    path: str | os.PathLike[str],
    size: int | tuple[int, int],
    limit: int | None = None,
    channels: int = 3,
) -> Tensor:
    """Every image of a folder (searched deeply) or a zip, in the order of their names.

    Args:
        size: side of the images, or (height, width), see `load_image`.
        limit: read no more than this many.
        channels: 3 for RGB, 1 for luma.

    Returns:
        Bytes ``(n, channels, height, width)``: a quarter of the memory of floats; see `from_uint8`.

    Raises:
        InputError: no such folder or zip, no image in it, one that cannot be read, or a bad
            argument.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InputError(f"limit={limit!r:.40}; give the number of images to read, at least 1.")
    if size is None or channels is None:
        raise InputError("images of one batch have one size and number of channels; give both.")
    files = islice(image_files(path), limit)
    pictures = [decode(source, size, channels, name) for name, source in files]
    if not pictures:
        raise InputError(f"{path}: holds no image; files ending in {_KINDS} are read.")
    return torch.stack(pictures)


def example_cats() -> Tensor:
    """Eight cats that the bundled prior has never seen: ``(8, 3, 64, 64)`` on [-1, 1].

    Source: the test part of AFHQ (Choi et al. 2020, CC BY-NC 4.0); see the README beside them.
    """
    return _examples("cats", 64)


def example_face() -> Tensor:
    """One face that the bundled prior has never seen: ``(1, 3, 256, 256)`` on [-1, 1].

    Source: a photograph of NASA, in the public domain; see the README beside it.
    """
    return _examples("faces", 256)


def _examples(name: str, size: int) -> Tensor:
    with resources.as_file(resources.files("diffsplit") / "assets" / name) as folder:
        return from_uint8(load_images(folder, size))


def save_image(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write one image ``(C, H, W)`` or ``(1, C, H, W)`` on [-1, 1] as an 8-bit file.

    One channel makes a gray file, three an RGB file. The suffix of ``path`` says the format, and an
    existing file is replaced.

    Raises:
        InputError: a batch or another shape, values that `to_uint8` refuses, a suffix not among
            `IMAGE_SUFFIXES`, or a path that cannot be written to.
    """
    values = to_uint8(image).cpu()
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.numel() == 0:
        raise InputError(
            f"an image to save has shape (1, H, W) or (3, H, W), not {tuple(image.shape)}; save "
            "the images of a batch one by one, or as one by ds.plots.image_grid(batch, columns=4)."
        )
    if path_of(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: no known kind of image; end the name in one of {_KINDS}.")
    array = values.permute(1, 2, 0).numpy()
    with atomic_write(path) as temporary:
        picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        try:
            picture.save(temporary)
        except (OSError, ValueError) as error:  # of a side that the format cannot have, or no space
            raise InputError(f"{path}: the image cannot be written ({error}).") from error
