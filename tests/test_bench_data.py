"""The images of a benchmark: data sets in their usual layouts, and which of their images."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffsplit.bench.data import DATA_SETS, find, load
from diffsplit.errors import InputError, MissingDependencyError

SIDE = 8


def picture(value: int, size: tuple[int, int] = (300, 260), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, kind, lossless=True)
    return file.getvalue()


def values(name: str, count: int, root: Path, **options: Any) -> list[int]:
    """The gray levels by which the images that are loaded can be told apart."""
    return [int(x[0, 0, 0]) for x in load(name, count, SIDE, root=root, **options).pixels]


def test_of_the_whole_of_ffhq_the_first_images_are_taken_as_dps_validated_on(
    tmp_path: Path,
) -> None:
    for number in (3, 0, 1000, 2, 1001, 1):
        file = tmp_path / "ffhq" / "images1024x1024" / f"{number // 1000:05d}" / f"{number:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number % 256))
    shown = load("ffhq", 3, SIDE, root=tmp_path)
    assert [Path(name).name for name in shown.names] == ["00000.png", "00001.png", "00002.png"]
    assert shown.words == "3 of FFHQ, 8×8"
    assert values("ffhq", 100, tmp_path) == [0, 1, 2, 3, 1000 % 256, 1001 % 256]
    assert values("ffhq", 3, tmp_path, choose="spread") == [0, 2, 1000 % 256]
    assert values("ffhq", 2, tmp_path, skip=2) == [2, 3]
    assert values("ffhq", 2, tmp_path, choose="spread", skip=2) == [2, 1000 % 256]
    with pytest.raises(InputError, match="no image after the first 6; set skip to less"):
        load("ffhq", 2, SIDE, root=tmp_path, skip=6)


def test_a_folder_of_ones_own_is_told_by_its_name_without_the_path(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "a.png").write_bytes(picture(9))
    assert load(str(tmp_path / "holiday"), 5, SIDE).words == "1 of holiday, 8×8"


def test_images_of_imagenet_that_are_too_small_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "imagenet" / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number, size in enumerate([(500, 375), (400, 255), (200, 300), (256, 256)]):
        file = folder / f"ILSVRC2012_val_0000000{number}.JPEG"
        file.write_bytes(picture(number, size))
    assert values("imagenet", 2, tmp_path) == [0, 3]
    assert values("imagenet", 2, tmp_path, choose="spread") == [0, 3]
    file.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"val_00000003.JPEG: not a readable image"):
        values("imagenet", 2, tmp_path)


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_every_usual_place_is_found_and_the_place_that_is_advised_is_one(
    name: str, tmp_path: Path
) -> None:
    data = DATA_SETS[name]
    for number, place in enumerate(data.places):
        root = tmp_path / str(number)
        target = root / place
        if target.suffix == ".zip":
            target.parent.mkdir(parents=True)
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr("inside/a.png", picture(7))
        else:
            target.mkdir(parents=True)
            (target / "a.png").write_bytes(picture(7))
        assert find(name, root) == target
        assert values(name, 1, root) == [7]
    assert data.put in data.places
    with pytest.raises(InputError, match="DIFFSPLIT_DATA"):
        load(name, 1, SIDE, root=tmp_path / "nothing")


def test_lsun_is_read_from_the_database_that_it_comes_in(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed: diffsplit[lsun]")
    folder = tmp_path / "lsun" / "bedroom_val_lmdb"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 22) as database, database.begin(write=True) as write:
        for number in (2, 0, 1):
            write.put(f"{number:040x}".encode(), picture(40 * number, kind="WEBP"))
    shown = load("lsun-bedrooms", 2, SIDE, root=tmp_path)
    assert shown.names == [f"{number:040x}" for number in (0, 1)]
    assert values("lsun-bedrooms", 3, tmp_path) == [0, 40, 80]
    assert values(str(folder), 2, tmp_path, choose="spread") == [0, 40]
    (folder / "data.mdb").write_bytes(b"no database")
    with pytest.raises(InputError, match="cannot be read as an LMDB database"):
        values("lsun-bedrooms", 1, tmp_path)


def test_without_lmdb_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"diffsplit\[lsun\]"):
        load(str(tmp_path), 1, SIDE)
