"""Training: a resumed run is the run it interrupted, and what it leaves behind can be used."""

import json
import zipfile

import pytest
import torch

from diffsplit import load_prior
from diffsplit.errors import InputError
from diffsplit.images import save_image
from diffsplit.training import TrainConfig, train
from diffsplit.training.report import nearest_images
from diffsplit.training.train import draw_sigma

pytest.importorskip("accelerate")

TINY = {"size": 16, "batch": 4, "channels": (16, 32), "checkpoint_minutes": 0.0}


@pytest.fixture
def pictures(tmp_path):
    """A zip of 12 smooth random pictures."""
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for i in range(12):
            coarse = torch.rand((1, 3, 4, 4), generator=generator) * 2 - 1
            image = torch.nn.functional.interpolate(coarse, size=24, mode="bilinear")
            save_image(image, folder / f"{i:02}.png")
            archive.write(folder / f"{i:02}.png", f"{i:02}.png")
    return tmp_path / "pictures.zip"


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(pictures, tmp_path):
    whole = train(pictures, tmp_path / "whole", TrainConfig(images=24, **TINY), cpu=True)

    class InterruptedRunError(Exception):
        pass

    calls = []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedRunError
        return original(*args, **kwargs)

    from diffsplit.training import train as module_function
    from diffsplit.training.train import _Run

    original = _Run.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "update", interrupt)
        with pytest.raises(InterruptedRunError):
            module_function(pictures, tmp_path / "cut", TrainConfig(images=24, **TINY), cpu=True)
    resumed = train(
        pictures, tmp_path / "cut", TrainConfig(images=24, **TINY), cpu=True, resume=True
    )
    for a, b in zip(whole.unet.parameters(), resumed.unet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_trained_folder_holds_a_prior_a_card_pictures_and_its_history(pictures, tmp_path):
    out = tmp_path / "prior"
    train(pictures, out, TrainConfig(images=8, **TINY), cpu=True, facts={"license": "cc0"})
    prior = load_prior(out)
    assert prior.error(1.0) is not None
    assert prior.describe()["training_images"] == 11  # one of twelve was held out
    card = (out / "README.md").read_text()
    assert "license: cc0" in card
    assert "| σ | v(σ) |" in card
    for name in ("samples.png", "training/samples.png", "training/loss.png"):
        assert (out / name).stat().st_size > 0
    state = torch.load(out / "training" / "checkpoint.pt", weights_only=True)
    assert [row["images"] for row in state["history"]] == [4, 8]
    json.dumps(state["history"])


def test_a_few_steps_of_training_lower_the_denoising_error(pictures, tmp_path):
    config = {**TINY, "checkpoint_minutes": 60.0}
    short = train(pictures, tmp_path / "a", TrainConfig(images=4, **config), cpu=True)
    longer = train(pictures, tmp_path / "b", TrainConfig(images=600, **config), cpu=True)
    assert longer.error(1.0) < 0.7 * short.error(1.0)


def test_a_started_run_is_not_overwritten_and_another_network_is_not_resumed(pictures, tmp_path):
    out = tmp_path / "prior"
    train(pictures, out, TrainConfig(images=4, **TINY), cpu=True)
    with pytest.raises(InputError, match="--resume"):
        train(pictures, out, TrainConfig(images=8, **TINY), cpu=True)
    other = TrainConfig(images=8, **{**TINY, "channels": (32, 32)})
    with pytest.raises(InputError, match="cannot be resumed"):
        train(pictures, out, other, cpu=True, resume=True)
    (out / "training" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be resumed"):
        train(pictures, out, TrainConfig(images=8, **TINY), cpu=True, resume=True)


def test_too_few_images_are_refused(pictures, tmp_path):
    with pytest.raises(InputError, match="too few"):
        train(pictures, tmp_path / "x", TrainConfig(**{**TINY, "batch": 32}), cpu=True)


def test_training_levels_cover_the_whole_range_and_dwell_where_solvers_ask():
    sigma = draw_sigma(TrainConfig(), 50_000, torch.Generator().manual_seed(0))
    assert sigma.min() >= 0.01 * 0.999
    assert sigma.max() <= 160 * 1.001
    assert (sigma > 40).float().mean() > 0.01
    assert ((sigma > 0.2) & (sigma < 4)).float().mean() > 0.6


def test_the_nearest_image_is_found_also_as_its_mirror_image():
    generator = torch.Generator().manual_seed(0)
    train_images = torch.randint(0, 256, (5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pictures = (train_images[[3, 1]].float() / 127.5 - 1).clone()
    pictures[1] = pictures[1].flip(-1)
    nearest, distance = nearest_images(pictures, train_images)
    torch.testing.assert_close(nearest, pictures)
    assert max(distance) < 1e-3
