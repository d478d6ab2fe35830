"""Training images as files in memory, and their augmentation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from tiny_training import zip_of_pictures

from diffsplit.errors import InputError
from diffsplit.io.images import from_uint8, load_images, save_image
from diffsplit.training import pictures as module
from diffsplit.training.augmentation import augmented
from diffsplit.training.card import nearest_images
from diffsplit.training.pictures import CompressedImages, batches, load_pictures, portion
from diffsplit.training.run import fingerprint


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A zip of nine JPEGs of 64×64 pixels and a noisy PNG that is larger than its pixels."""
    generator = torch.Generator().manual_seed(0)
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        for i in range(10):
            coarse = torch.rand((1, 3, 5, 5), generator=generator) * 2 - 1
            image = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(-1, 1)
            suffix = "jpg"
            if i == 4:
                image, suffix = torch.rand((1, 3, 96, 96), generator=generator), "png"
            save_image(image, tmp_path / f"one.{suffix}")
            archive.write(tmp_path / f"one.{suffix}", f"{i}.{suffix}")
    return tmp_path / "photographs.zip"


@pytest.fixture
def compressed(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> CompressedImages:
    monkeypatch.setattr(module, "DECODED_BYTES", 50_000)
    images = load_pictures(photographs, 64)
    assert isinstance(images, CompressedImages)
    return images


def test_few_images_are_held_decoded(photographs: Path) -> None:
    images = load_pictures(photographs, 64)
    assert isinstance(images, torch.Tensor)
    assert torch.equal(images, load_images(photographs, 64))


def test_many_images_are_held_in_less_memory_and_are_the_same_images(
    photographs: Path, compressed: CompressedImages
) -> None:
    images = load_images(photographs, 64)
    assert compressed.shape == images.shape
    assert len(compressed) == 10
    index = torch.tensor([7, 0, 4, 7])
    assert torch.equal(compressed[index], images[index])
    for part in (slice(None, None, 3), slice(-2, None), slice(3, 3)):
        assert torch.equal(compressed[part], images[part])
    held = [len(p) if isinstance(p, bytes) else p.numel() for p in compressed.parts]
    assert isinstance(compressed.parts[4], torch.Tensor)  # its file is larger
    assert sum(held) < 0.4 * images.numel()
    assert fingerprint(compressed) == fingerprint(images)
    left = portion(compressed, 2, 9)
    assert torch.equal(left[:], images[2:9])
    together = torch.cat(list(batches(compressed, 4)))
    assert torch.equal(together, from_uint8(images))
    some = torch.cat(list(batches(compressed, 2, limit=4)))
    assert torch.equal(some, from_uint8(images[::3]))


def test_the_nearest_image_is_found_among_compressed_ones(
    compressed: CompressedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsplit.training.card.CHUNK", 4 * 3 * 64**2)  # four at once
    nearest, distance = nearest_images(from_uint8(compressed[torch.tensor([8, 2])]), compressed)
    assert torch.equal(nearest, from_uint8(compressed[torch.tensor([8, 2])]))
    assert max(distance) < 1e-3


def test_a_damaged_file_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECODED_BYTES", 100)
    source = zip_of_pictures(tmp_path / "pictures.zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("99.png", b"no image")
    with pytest.raises(InputError, match=r"99\.png: not a readable image"):
        load_pictures(source, 16)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a.txt", "nothing")
    with pytest.raises(InputError, match="holds no image"):
        load_pictures(tmp_path / "empty.zip", 16)


def smooth(count: int = 6, size: int = 32) -> torch.Tensor:
    coarse = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)


def test_augmentation_is_repeatable_stays_in_range_and_leaves_its_input_alone() -> None:
    x = smooth()
    before = x.clone()
    one, two = (augmented(x, 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(x, before)
    assert one.shape == x.shape
    assert one.abs().max() <= 1
    assert (one - x).abs().flatten(1).amax(1).min() > 0.01  # every image was changed
    assert torch.equal(augmented(x, 0.0, torch.Generator()), x)


def test_augmentation_changes_the_share_of_images_that_was_asked_for() -> None:
    x = smooth(1).expand(300, -1, -1, -1)
    changed = (augmented(x, 0.2, torch.Generator().manual_seed(0)) - x).abs().flatten(1).amax(1) > 0
    assert abs(changed.float().mean().item() - (1 - 0.8**3)) < 0.1


def test_sharpening_leaves_flat_images_and_raises_the_contrast_of_edges() -> None:
    from diffsplit.training.augmentation import _sharpened

    generator = torch.Generator().manual_seed(0)
    flat = torch.full((2, 3, 20, 24), 0.4)
    torch.testing.assert_close(_sharpened(flat, generator), flat)
    edge = torch.zeros(2, 3, 20, 24)
    edge[..., 12:] = 0.5
    sharp = _sharpened(edge, generator)
    assert (sharp[..., 12] > 0.52).all()
    assert (sharp[..., 11] < -0.02).all()
