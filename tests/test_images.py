from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffsplit
from diffsplit import Problem
from diffsplit.io import images
from diffsplit.plots import figures
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.errors import InputError
from diffsplit.operators import ChannelMix, Downsample, GaussianMatrix, LinearOperator, PixelMask


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
    assert torch.equal(images.to_uint8(floats), levels)
    assert torch.equal(images.to_uint8(torch.tensor([-7.0, 7.0])), levels[[0, 255]])


def test_a_saved_png_holds_the_image_to_half_a_gray_level(tmp_path: Path) -> None:
    x = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images.save_image(x, tmp_path / "x.png")
    back = images.load_image(tmp_path / "x.png")
    assert back.shape == (1, 3, 9, 7)
    assert (back[0] - x).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode in ("CMYK", "I;16") else ".png"
    path = picture(tmp_path / f"x{suffix}", mode)
    assert images.load_image(path, 8).shape == (1, 3, 8, 8)


def test_sixteen_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    x = images.load_image(tmp_path / "x.png")
    expected = torch.from_numpy(ramp / 32767.5 - 1).float()
    torch.testing.assert_close(x[0, 0], expected, atol=1 / 120, rtol=0)


def test_transparent_pixels_do_not_show_what_is_hidden_under_them(tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    hidden.save(tmp_path / "x.png")
    x = images.load_image(tmp_path / "x.png")
    assert x.std() == 0, "red was hidden behind full transparency"


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


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match="no such image file"):
            images.load_image(path)


def test_folders_and_zips_give_the_same_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for i, name in enumerate(["b.png", "a.png", "deep/c.png"]):
        Image.new("RGB", (8, 8), (i * 100, 0, 0)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
    batch = images.load_images(folder, 4)
    assert batch[:, 0, 0, 0].tolist() == [100, 0, 200]
    assert torch.equal(batch, images.load_images(tmp_path / "all.zip", 4))
    assert torch.equal(batch[:2], images.load_images(folder, 4, limit=2))


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


def test_notes_that_a_mac_adds_to_folders_and_zips_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "__MACOSX").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    for name in ("._a.png", "__MACOSX/a.png"):
        (folder / name).write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    assert len(images.load_images(folder, 4)) == 1
    assert len(images.load_images(tmp_path / "all.zip", 4)) == 1


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
    Image.fromarray((ramp * 65535).astype(np.int32)).save(tmp_path / "words.tif")
    expected = torch.from_numpy(ramp * 2 - 1).float()
    x = images.load_image(tmp_path / "words.tif")
    torch.testing.assert_close(x[0, 0], expected, atol=1 / 120, rtol=0)


def test_an_image_of_two_channels_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shape"):
        images.save_image(torch.zeros(2, 4, 4), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.txt"])
def test_a_name_of_no_kind_of_image_is_refused_with_the_kinds_there_are(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=r"\.bmp, \.jpeg, \.jpg, \.png"):
        images.save_image(torch.zeros(3, 4, 4), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", sorted(images.IMAGE_SUFFIXES))
def test_every_kind_of_image_that_is_read_is_written_too(tmp_path: Path, suffix: str) -> None:
    images.save_image(torch.zeros(3, 4, 4), tmp_path / f"x{suffix}")
    assert images.load_image(tmp_path / f"x{suffix}").shape == (1, 3, 4, 4)


def test_a_batch_is_refused_with_the_grid_that_shows_it(tmp_path: Path) -> None:
    batch = torch.zeros(6, 3, 4, 4)
    with pytest.raises(InputError, match=r"figures\.image_grid\(batch, columns=4\)"):
        diffsplit.save_image(batch, tmp_path / "x.png")
    diffsplit.save_image(diffsplit.plots.figures.image_grid(batch, columns=4), tmp_path / "x.png")
    assert images.load_image(tmp_path / "x.png").shape == (1, 3, 10, 22)


def test_the_example_cats_are_eight_different_images_on_the_range() -> None:
    cats = images.example_cats()
    assert cats.shape == (8, 3, 64, 64)
    assert cats.min() >= -1
    assert cats.max() <= 1
    distance = torch.cdist(cats.flatten(1), cats.flatten(1)) + 1e3 * torch.eye(8)
    assert distance.min() > 10


def test_a_grid_shows_each_image_in_its_place() -> None:
    batch = torch.linspace(-1, 0.5, 5).view(-1, 1, 1, 1).expand(-1, 3, 4, 6)
    grid = figures.image_grid(batch, columns=3, gap=2)
    assert grid.shape == (3, 4 + 2 + 4, 6 * 3 + 2 * 2)
    assert torch.equal(grid[:, 6:, 8:14], batch[4])
    assert (grid[:, 4:6] == 1).all()


@pytest.mark.parametrize(
    ("shape", "columns"), [((3, 4, 4), 1), ((0, 3, 4, 4), 1), ((1, 3, 4, 4), 0)]
)
def test_a_grid_of_no_images_or_columns_is_refused(shape: tuple[int, ...], columns: int) -> None:
    with pytest.raises(InputError, match="in one column or more"):
        figures.image_grid(torch.zeros(shape), columns)


def test_in_pictures_of_measurements_missing_pixels_are_gray_and_small_images_large() -> None:
    shape, exact = (3, 8, 8), GaussianNoise(0.0)
    x = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    masked = Problem(PixelMask.box(shape, 2, 2, 4, 4), exact)
    label, shown = figures.measurement_pictures(masked, masked.operator.apply(x))
    assert label == "measurement"
    assert bool((shown[..., 2:6, 2:6] == 0).all())
    assert torch.equal(shown[..., :2, :], x[..., :2, :])
    small = Problem(Downsample(shape, 4), exact)
    y = small.operator.apply(x)
    label, shown = figures.measurement_pictures(small, y)
    assert label == "measurement"
    assert torch.equal(shown, y.repeat_interleave(4, 2).repeat_interleave(4, 3))


@pytest.mark.parametrize(
    "operator",
    [GaussianMatrix((3, 8, 8), rows=9, seed=0), ChannelMix((3, 8, 8), torch.ones(2, 3))],
    ids=["random sums", "two channels"],
)
def test_measurements_that_are_no_picture_are_shown_back_projected(
    operator: LinearOperator,
) -> None:
    problem = Problem(operator, OneBit(0.5))
    y = torch.ones(2, *operator.shape_out)
    label, shown = figures.measurement_pictures(problem, y)
    assert label == "A^T y"
    assert torch.equal(shown, figures.stretch(operator.adjoint(y)))


def test_a_comparison_shows_each_image_enlarged_in_its_row_and_column() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [(f"row {r}", torch.rand(3, 3, 5, 5, generator=generator) * 2 - 1) for r in range(2)]
    figure = figures.comparison(rows, scale=2, gap=4, label_width=50)
    assert figure.shape == (3, 2 * 14 - 4, 50 + 3 * 14 - 4)
    shown = figure[:, 14:24, 50 + 14 : 50 + 24][:, ::2, ::2]
    torch.testing.assert_close(shown, rows[1][1][1], atol=1 / 255 + 1e-6, rtol=0)
    assert figure[:, :, :50].min() < 0, "no label was drawn"


def test_panels_stand_side_by_side_over_their_captions() -> None:
    image = torch.zeros(3, 40, 40)
    figure = figures.side_by_side([("a", image), ("b", image - 1)], scale=3, gap=6)
    assert figure.shape == (3, 40 * 3 + 22, 2 * 120 + 6)
    assert (figure[:, :120, 126:] == -1).all()
    assert figure[:, 120:].min() < 0, "no caption was drawn"


def test_figures_refuse_images_of_two_sizes() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 5, 5)
    with pytest.raises(InputError):
        figures.comparison([("a", a), ("b", b)])
    with pytest.raises(InputError):
        figures.side_by_side([("a", a[0]), ("b", b[0])])


def test_a_std_map_is_black_where_certain_and_white_at_the_top() -> None:
    std = torch.zeros(1, 3, 4, 4)
    std[:, :, 0, 0] = 0.2
    shown = figures.std_map(std, top=0.2)
    assert shown.shape == (1, 3, 4, 4)
    torch.testing.assert_close(shown[0, :, 0, 0], torch.ones(3))
    assert (shown[0, :, 1:] == -1).all()


def test_stretch_fills_the_range_of_each_image_and_keeps_zero_and_signs() -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1e-3, 50.0]).view(-1, 1, 1, 1)
    shown = figures.stretch(x)
    assert torch.equal(shown.sign(), x.sign())
    assert shown.abs().flatten(1).amax(1).tolist() == [1.0, 1.0]
    assert (shown.abs().flatten(1) == 1).float().mean() < 0.01
    assert torch.equal(figures.stretch(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3, 4, 4))
