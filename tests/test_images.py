from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplit.errors import InputError
from diffsplit.io import images
from diffsplit.plots import image_grid


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 12)) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").convert(mode).save(path)
    return path


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = images.from_uint8(levels)
    assert (floats[0].item(), floats[-1].item()) == (-1.0, 1.0)
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert torch.equal(images.to_uint8(floats.to(dtype)), levels)
    assert torch.equal(images.to_uint8(torch.tensor([-7.0, 7.0])), levels[[0, 255]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_saved_png_holds_the_image_to_half_a_gray_level(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    x = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).to(dtype)
    images.save_image(x, tmp_path / "x.png")
    back = images.load_image(tmp_path / "x.png")
    assert back.shape == (1, 3, 9, 7)
    assert (back[0] - x.float()).abs().max() <= 1 / 255 + 1e-6


def test_a_gray_image_comes_back_from_its_file_byte_for_byte(tmp_path: Path) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    images.save_image(images.from_uint8(levels), tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").mode == "L"
    for channels in (1, None):
        back = images.load_image(tmp_path / "x.png", channels=channels)
        assert torch.equal(images.to_uint8(back), levels[None])
    assert torch.equal(images.load_image(tmp_path / "x.png"), back.expand(1, 3, 16, 16))
    assert torch.equal(images.load_images(tmp_path, 16, channels=1), levels[None])


def test_one_channel_of_a_color_file_is_its_luma(tmp_path: Path) -> None:
    x = images.load_image(picture(tmp_path / "x.png"), channels=None)
    luma = images.load_image(tmp_path / "x.png", channels=1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close(luma, (weights * x).sum(1, keepdim=True), atol=1.1 / 255, rtol=0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "LAB"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I;16", "LAB") else "x.png")
    values = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    if mode == "LAB":
        Image.fromarray(values, "LAB").save(path)
    else:
        picture(path, mode)
    assert images.load_image(path, 8).shape == (1, 3, 8, 8)
    gray = mode in ("L", "LA", "1", "I;16")
    assert images.load_image(path, channels=None).shape[1] == (1 if gray else 3)


def test_sixteen_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    expected = torch.from_numpy(ramp / 32767.5 - 1).float()
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "x.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "x.tif")
    for name in ("x.png", "x.tif"):
        x = images.load_image(tmp_path / name)
        torch.testing.assert_close(x[0, 0], expected, atol=1 / 120, rtol=0)


def test_pixels_of_an_unknown_range_are_refused_and_not_turned_black(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    for name, values in {
        "floats.tif": ramp.astype(np.float32),
        "bytes.tif": (ramp * 255).astype(np.int32),
        "long.tif": (ramp * 1e6).astype(np.int32),
    }.items():
        Image.fromarray(values).save(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: .*no known range"):
            images.load_image(tmp_path / name)


def test_transparent_pixels_do_not_show_what_is_hidden_under_them(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert (images.load_image(tmp_path / "x.png") == 1).all(), "red was hidden there"


def test_a_photo_that_a_camera_marked_as_turned_is_turned_back(tmp_path: Path) -> None:
    values = np.zeros((4, 8, 3), np.uint8)
    values[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(values).save(tmp_path / "x.png", exif=exif)
    x = images.load_image(tmp_path / "x.png")
    assert x.shape == (1, 3, 8, 4)
    assert (x[..., -1] == 1).all()


def test_resizing_takes_the_central_square(tmp_path: Path) -> None:
    values = np.zeros((10, 30, 3), np.uint8)
    values[:, 10:20] = 255
    Image.fromarray(values).save(tmp_path / "x.png")
    assert images.load_image(tmp_path / "x.png", 10).min() == 1.0


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"\x89PNG\r\n\x1a\n", bomb(60_000, 60_000), bomb(9_000, 9_000), bomb(0, 5)],
    ids=["empty", "text", "signature", "bomb", "large", "zero-width"],
)
def test_broken_images_raise_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png"):
        images.load_image(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
def test_truncated_files_of_every_format_raise_input_errors_only(
    tmp_path: Path, suffix: str
) -> None:
    whole = picture(tmp_path / f"whole{suffix}").read_bytes()
    part = tmp_path / f"part{suffix}"
    for length in range(0, len(whole) * 9 // 10, max(1, len(whole) // 25)):
        part.write_bytes(whole[:length])
        with suppress(InputError):  # a format may do without its last bytes
            images.load_image(part, 8)
    part.write_bytes(whole[: len(whole) // 8])
    with pytest.raises(InputError, match="part"):
        images.load_image(part)


@pytest.mark.parametrize(
    "arguments",
    [("none.png",), (".",), (3,), ("x.png", 0), ("x.png", "8"), ("x.png", 10**9), ("x.png", 8, 4)],
)
def test_images_that_cannot_be_loaded_raise_input_errors(
    tmp_path: Path, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(Path("x.png"))
    with pytest.raises(InputError):
        images.load_image(*arguments)


def test_folders_and_zips_give_the_same_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for i, name in enumerate(["b.png", "a.png", "deep/c.png"]):
        Image.new("RGB", (8, 8), (i * 100, 0, 0)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    (folder / "__MACOSX").mkdir()
    for name in ("._a.png", "__MACOSX/a.png"):  # notes that a Mac adds to each file
        (folder / name).write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
    batch = images.load_images(folder, 4)
    assert batch[:, 0, 0, 0].tolist() == [100, 0, 200]
    assert torch.equal(batch, images.load_images(tmp_path / "all.zip", 4))
    assert torch.equal(batch[:2], images.load_images(folder, 4, limit=2))
    for bad in ({"limit": 0}, {"limit": -1}, {"channels": None}):
        with pytest.raises(InputError):
            images.load_images(folder, 4, **bad)


def test_folders_without_images_and_broken_zips_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * 5000)
    damaged = bytearray(member.getvalue())
    damaged[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for path in (tmp_path, tmp_path / "none", tmp_path / "broken.zip", tmp_path / "damaged.zip"):
        with pytest.raises(InputError):
            images.load_images(path, 4)


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        (torch.full((3, 4, 4), torch.nan), "NaN"),
        (torch.full((3, 4, 4), -torch.inf), "NaN or infinity"),
        (torch.arange(48.0).reshape(3, 4, 4), r"ds\.images\.from_uint8"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"ds\.images\.from_uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"ds\.images\.from_numpy"),
        (np.zeros((4, 4, 3)), r"ds\.images\.from_numpy"),
        (torch.zeros(2, 4, 4), "shape"),
        (torch.zeros(3, 0, 4), "shape"),
        (torch.zeros(6, 3, 4, 4), r"ds\.plots\.image_grid\(batch, columns=4\)"),
        (None, "tensor"),
    ],
    ids=["NaN", "inf", "0…255", "uint8", "array", "floats", "two channels", "empty", "batch", "-"],
)
def test_what_is_no_image_is_not_saved_and_the_message_says_what_to_do(
    tmp_path: Path, image: Any, advice: str
) -> None:
    with pytest.raises(InputError, match=advice):
        images.save_image(image, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_a_grid_shows_a_batch_as_one_image(tmp_path: Path) -> None:
    images.save_image(image_grid(torch.zeros(6, 3, 4, 4), columns=4), tmp_path / "x.png")
    assert images.load_image(tmp_path / "x.png").shape == (1, 3, 10, 22)


@pytest.mark.parametrize("name", ["x.xyz", "x", "none/x.png", "x" * 300 + ".png"])
def test_a_path_that_no_image_can_be_written_to_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        images.save_image(torch.zeros(3, 4, 4), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_side_that_a_format_cannot_have_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        images.save_image(torch.zeros(1, 1, 70_000), tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", sorted(images.IMAGE_SUFFIXES))
def test_every_kind_of_image_that_is_read_is_written_too(tmp_path: Path, suffix: str) -> None:
    for channels in (1, 3):
        images.save_image(torch.zeros(channels, 4, 4), tmp_path / f"x{suffix}")
        assert images.load_image(tmp_path / f"x{suffix}").shape == (1, 3, 4, 4)


def test_arrays_of_bytes_become_the_batch_that_their_files_give(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "x.png")
    x = images.load_image(tmp_path / "x.png")
    assert torch.equal(images.from_numpy(array), x)
    assert torch.equal(images.from_numpy(array[..., 0]), x[:, :1])
    assert torch.equal(images.from_numpy(np.stack([array, array])), x.expand(2, -1, -1, -1))
    assert torch.equal(images.from_numpy(array[:, ::-1, ::-1]), x.flip(1, 3))


def test_arrays_of_floats_are_read_by_the_range_that_is_given() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    x = images.from_numpy(array)
    for values, value_range in (
        (array / 255, (0, 1)),
        (array.astype(np.float32), (0, 255)),
        (array.astype(np.uint16) * 257, (0, 65535)),
        (array / 127.5 - 1, (-1, 1)),
    ):
        back = images.from_numpy(values, value_range=value_range)
        assert back.dtype == torch.float32
        torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("array", "value_range"),
    [
        (np.zeros((4, 4, 3)), None),
        (np.zeros((4, 4), np.int64), None),
        (np.full((4, 4), 2.0), (0, 1)),
        (np.full((4, 4), np.nan), (0, 1)),
        (np.zeros((4, 4)), (1, 1)),
        (np.zeros((4, 4)), "ab"),
        (np.zeros((4, 4), complex), (0, 1)),
        (np.zeros((4, 4, 4), np.uint8), None),
        (np.zeros((3, 4, 4), np.uint8), None),
        (np.zeros((0, 4, 3), np.uint8), None),
        (torch.zeros(4, 4, 3), None),
    ],
)
def test_arrays_that_could_be_read_in_two_ways_are_refused(array: Any, value_range: Any) -> None:
    with pytest.raises(InputError):
        images.from_numpy(array, value_range)


def test_the_example_face_is_one_image_on_the_range() -> None:
    face = images.example_face()
    assert face.shape == (1, 3, 256, 256)
    assert -1 <= face.min() < face.max() <= 1


def test_the_example_cats_are_eight_different_images_on_the_range() -> None:
    cats = images.example_cats()
    assert cats.shape == (8, 3, 64, 64)
    assert cats.min() >= -1
    assert cats.max() <= 1
    distance = torch.cdist(cats.flatten(1), cats.flatten(1)) + 1e3 * torch.eye(8)
    assert distance.min() > 10
