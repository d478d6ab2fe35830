"""The images of a benchmark: a folder, a zip, or a data set by its name.

Data sets are looked for in their usual layouts under the folder that the environment variable
DIFFSPLIT_DATA names, or that ``--data`` gives. Images are cropped to the central square and
resized, as the field does.

Which images: neither paper names those that it took (Diff-OneBit: 100 of the validation set; DCDP:
100 at random). Here they are the first in the order of their names. Of the whole of FFHQ these are
00000 to 00099: the first 1,000 images are what the authors of DPS name as their validation set, on
whose network both papers build. Of ImageNet's validation images those whose shorter side is below
256 pixels are passed over, as the authors of MCG did. LSUN has 300 validation images of bedrooms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import IO, Literal

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.io.decoding import decode, image_files, shorter_side

__all__ = ["DATA_SETS", "DATA_VARIABLE", "DataSet", "Images", "find", "load"]

DATA_VARIABLE = "DIFFSPLIT_DATA"


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        title: its name for people.
        places: folders and zips, under the data folder, that it may be in; the first is taken.
        source: where to get it.
        put: where to put it, under the data folder.
        least: shorter side in pixels; smaller images are passed over.
    """

    title: str
    places: tuple[str, ...]
    source: str
    put: str
    least: int = 0


_FFHQ = DataSet(
    "FFHQ",
    (
        "ffhq-256-test",
        "ffhq/val",
        "ffhq-256",
        "ffhq256",
        "ffhq/images1024x1024",
        "ffhq-dataset/images1024x1024",
        "ffhq",
        "ffhq.zip",
    ),
    "https://github.com/NVlabs/ffhq-dataset (the 100 test images of the papers: the samples that "
    "https://github.com/zhangbingliang2019/DAPS ships)",
    "ffhq",
)
DATA_SETS = {
    "ffhq": _FFHQ,
    "celeba-hq": DataSet(
        "CelebA-HQ",
        (
            "celeba-hq/val",
            "celeba_hq_256",
            "celeba-hq-256",
            "CelebAMask-HQ/CelebA-HQ-img",
            "celeba-hq",
            "celeba-hq.zip",
        ),
        "https://github.com/tkarras/progressive_growing_of_gans",
        "celeba-hq",
    ),
    "imagenet": DataSet(
        "ImageNet, validation",
        (
            "imagenet/val",
            "imagenet-val",
            "ILSVRC2012/val",
            "ILSVRC2012_img_val",
            "ILSVRC/Data/CLS-LOC/val",
            "imagenet-val.zip",
        ),
        "https://image-net.org/download (ILSVRC2012_img_val.tar, unpacked)",
        "imagenet/val",
        least=256,
    ),
    "lsun-bedrooms": DataSet(
        "LSUN bedrooms, validation",
        (
            "lsun/bedroom_val_lmdb",
            "bedroom_val_lmdb",
            "lsun/bedroom_val",
            "lsun/bedrooms",
            "lsun-bedrooms",
            "bedroom_val",
            "lsun-bedrooms.zip",
        ),
        "https://github.com/fyu/lsun (bedroom_val_lmdb.zip, unpacked; the extra diffsplit[lsun] "
        "reads it)",
        "lsun/bedroom_val_lmdb",
    ),
    "afhq-cats": DataSet(
        "AFHQ, cats",
        (
            "afhq/test/cat",
            "afhq/val/cat",
            "afhq_v2/test/cat",
            "afhqv2/test/cat",
            "afhq-cat-128/val.zip",
            "afhq-cat/val",
            "afhq-cats",
        ),
        "https://github.com/clovaai/stargan-v2",
        "afhq/test/cat",
    ),
}
"""By the name that a configuration gives."""
_ASSETS = Path(str(resources.files("diffsplit"))) / "assets"
BUNDLED = {"cats": _ASSETS / "cats", "face": _ASSETS / "faces"}
"""Pictures that come with the package: eight cats of 64×64, one face of 256×256."""
FACES = "faces"
"""FFHQ where it is found, else the bundled face."""


@dataclass(frozen=True)
class Images:
    """The true images of a row.

    Attributes:
        names: of each, such as "00003.png".
        pixels: bytes ``(n, 3, H, W)``.
        words: what they are, for a report.
    """

    names: list[str]
    pixels: Tensor
    words: str


def find(name: str, root: Path | None = None) -> Path | None:
    """Where a data set is, or None.

    Args:
        name: one of `DATA_SETS`.
        root: the data folder; by default that of `DATA_VARIABLE`.
    """
    given = os.environ.get(DATA_VARIABLE, "")
    folder = root or (Path(given) if given else None)
    if folder is None:
        return None
    return next((folder / p for p in DATA_SETS[name].places if (folder / p).exists()), None)


def load(
    name: str,
    count: int,
    size: int,
    choose: Literal["first", "spread"] = "first",
    root: Path | None = None,
    skip: int = 0,
) -> Images:
    """The images of a data set, a folder or a zip; fewer than ``count`` if there are no more.

    Args:
        name: "cats" or "face", which are bundled, "faces", one of `DATA_SETS`, or a path.
        choose: the first in the order of their names, or evenly spread over all.
        root: see `find`.
        skip: how many are passed over first.

    Raises:
        InputError: the data set is not there (the message says where to get it and where to put
            it), an image cannot be read, or all of them are passed over.
    """
    if name == FACES:
        name = "ffhq" if find("ffhq", root) is not None else "face"
    # A path is told by its last part alone, since reports are handed on to others.
    path, words, least = Path(name), Path(name).resolve().name or name, 0
    if name in BUNDLED and not path.exists():
        path, words = BUNDLED[name], f"the bundled {name}"
    elif name in DATA_SETS and not path.exists():
        place, data = find(name, root), DATA_SETS[name]
        if place is None:
            raise InputError(
                f"the images of {data.title} are not there: get them from {data.source}, put them "
                f"into {data.put} in a folder of your choice, and set {DATA_VARIABLE} to it or "
                "give it with --data."
            )
        path, words, least = place, data.title, data.least
    chosen = _usable(path, least, skip)
    if choose == "spread":
        listed = [found for found, _ in chosen]
        wanted = set(listed[:: max(1, len(listed) // count)][:count])
        usable = _usable(path, least, skip)
        chosen = ((found, source) for found, source in usable if found in wanted)
    names: list[str] = []
    pictures: list[Tensor] = []
    for found, source in islice(chosen, count):
        names.append(found.removeprefix(str(path)).lstrip(":/\\"))
        pictures.append(decode(source, size, 3, found))
    if not names and skip:
        raise InputError(f"{path}: has no image after the first {skip}; set skip to less.")
    if not names:
        raise InputError(f"{path}: holds no image; give a folder or a zip of PNG or JPEG files.")
    return Images(names, torch.stack(pictures), f"{len(names)} of {words}, {size}×{size}")


def _usable(path: Path, least: int, skip: int) -> Iterator[tuple[str, Path | IO[bytes]]]:
    """The images of a folder, zip or database that are large enough, in their order, after some."""
    for found, source in image_files(path):
        if not least or shorter_side(source, found) >= least:
            if skip == 0:
                yield found, source
            skip = max(0, skip - 1)
